"""Writes the tables and the tree of docs/datasets.md from the declarations.

python -m scripts.datasets_table
"""

from pathlib import Path

from pathweave.datasets.declaration import Dataset, ScoringMethod, datasets
from pathweave.storage.atomic import write_atomic

DOCUMENT = Path(__file__).parents[1] / "docs" / "datasets.md"
_HEADER = (
    "data set",
    "shown, asked, domain",
    "from",
    "terms",
    "split: samples (in the paper)",
    "prompt",
    "metric and decoding",
)


def table() -> str:
    """Return the table of all data sets, in Markdown."""
    rows = [_HEADER, ("---",) * len(_HEADER), *map(_row, datasets().values())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def notes() -> str:
    """Return where the annotation files of each data set are, and what else is to be known."""
    lines = []
    for dataset in datasets().values():
        files = " ".join(f"<{source}>" for source in dataset.sources)
        lines.append(" ".join(filter(None, [f"- `{dataset.name}`:", dataset.note, files])))
    return "\n".join(lines)


def tree() -> str:
    """Return the tree of all files that are read under a root."""
    files: dict[str, list[str]] = {}
    for dataset in datasets().values():
        for name, split in dataset.splits.items():
            media = [
                path.replace("{split}", name)
                for medium in split.media
                for path in (*medium.companion, *medium.paths[:1])
            ]
            annotations = list(split.annotations)
            for path in (*annotations, *_with_folders(media, annotations)):
                users = files.setdefault(path, [])
                if dataset.name not in users:
                    users.append(dataset.name)
    lines, before = ["ROOT/"], [""]
    for path in sorted(files):
        parts = path.split("/")
        for depth, part in enumerate(parts[:-1]):
            if parts[: depth + 1] != before[: depth + 1]:
                lines.append(f"{'  ' * (depth + 1)}{part}/")
                before = parts[: depth + 1]
        before = parts[:-1]
        name = "  " * len(parts) + parts[-1]
        lines.append(f"{name:<58} {', '.join(files[path])}".rstrip())
    return "\n".join(lines)


def with_tables(text: str) -> str:
    """Return the document with table and tree as declared now."""
    contents = {"table": table(), "notes": notes(), "tree": f"```text\n{tree()}\n```"}
    for mark, content in contents.items():
        before, rest = text.split(f"<!-- {mark} -->\n")
        after = rest.split(f"<!-- end of {mark} -->")[1]
        text = f"{before}<!-- {mark} -->\n{content}\n<!-- end of {mark} -->{after}"
    return text


def _with_folders(media: list[str], annotations: list[str]) -> list[str]:
    folders = [path.split("/")[-2] for path in annotations]
    return [
        path.replace("{folder}", folder)
        for path in media
        for folder in (folders if "{folder}" in path else folders[:1])
    ]


def _row(dataset: Dataset) -> tuple[str, ...]:
    splits = []
    for name, split in dataset.splits.items():
        published = f"{split.samples:,}" if split.samples else "?"
        paper = f" ({split.paper:,})" if split.paper else ""
        splits.append(f"{name}{'*' if split.learn else ''}: {published}{paper}")
    evaluations = [_evaluation(how) for how in dataset.evaluation.values()]
    return (
        f"`{dataset.name}`: {dataset.title}",
        f"{', '.join(dataset.modalities)}; {dataset.task}; {dataset.domain}",
        f"<{dataset.origin}>",
        dataset.terms,
        "; ".join(splits),
        f"`{dataset.prompt}`" if dataset.evaluation else "",
        "; or ".join(evaluations),
    )


def _evaluation(how: ScoringMethod) -> str:
    if (decoding := how.decoding) is None:
        return f"{how.metric} of `{how.candidates}`"
    return (
        f"{how.metric}; {decoding['beams']} beams, "
        f"{decoding['min_tokens']}-{decoding['max_tokens']} tokens, "
        f"length {decoding['length_penalty']:g}, repetition {decoding['repetition_penalty']:g}"
    )


if __name__ == "__main__":
    write_atomic(DOCUMENT, with_tables(DOCUMENT.read_text(encoding="utf-8")).encode())
