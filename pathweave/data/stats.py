"""What manifests hold: samples, answers, media, and what several of them share."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.console import Console

from pathweave.data.manifest import Manifest
from pathweave.display import Display, WholeTable
from pathweave.errors import ManifestError, MediaError
from pathweave.storage.atomic import sha256_bytes

SHOWN_ANSWERS = 10


def manifest_stats(paths: Sequence[Path], display: Display) -> dict[str, Any]:
    """Return what is in some manifests, as plain values; every medium is read once.

    Args:
        paths: The manifests.
        display: Where progress is shown.

    Returns:
        ``manifests``: of each its samples, broken rows, answers by how often they occur, things
        shown, media (files, bytes, missing ones) by modality, and licences. ``shared``: of each
        pair how many media, by their content, and things they have in common.

    Raises:
        ManifestError: If a manifest is missing, or no row of it is sound.
    """
    told, media, things = [], [], []
    with display:
        for path in paths:
            manifest = Manifest(path, on_error="collect")
            bar = display.bar(path.name, total=len(manifest))
            found: dict[str, dict[str, Any]] = {}
            hashes: dict[str, str] = {}
            answers, objects, licences = Counter[str](), Counter[str](), Counter[str]()
            for sample in manifest:
                bar.advance()
                try:
                    answers[sample.answer] += 1
                except ManifestError:
                    answers[""] += 1  # a sample to be answered, not to learn from
                objects[sample.object or ""] += 1
                licences[sample.licence or "not stated"] += 1
                for part in (part for turn in sample.messages for part in turn.content):
                    if part.is_text or f"{part.path} {part.companion}" in hashes:
                        continue
                    about = found.setdefault(part.type, {"files": 0, "bytes": 0, "missing": []})
                    about["files"] += 1
                    try:
                        data = manifest.read_media(part)
                    except MediaError as error:
                        about["missing"].append(str(error))
                        data = b""
                    about["bytes"] += len(data)
                    hashes[f"{part.path} {part.companion}"] = sha256_bytes(data) if data else ""
            bar.close()
            del objects[""]
            told.append(
                {
                    "manifest": str(path),
                    "samples": len(manifest),
                    "broken": manifest.problems,
                    "answers": dict(answers.most_common()),
                    "objects": len(objects),
                    "media": found,
                    "licences": dict(licences.most_common()),
                }
            )
            media.append(set(hashes.values()) - {""})
            things.append(set(objects))
    shared = [
        {
            "manifests": [str(paths[i]), str(paths[j])],
            "media": len(media[i] & media[j]),
            "objects": len(things[i] & things[j]),
        }
        for i, j in combinations(range(len(paths)), 2)
    ]
    return {"manifests": told, "shared": shared}


def show_stats(stats: dict[str, Any]) -> None:
    """Print statistics: a table of the manifests, their answers, what is wrong or shared."""
    console = Console()
    table = WholeTable("manifest", "samples", "answers", "things", "media", "MB", "missing")
    for told in stats["manifests"]:
        by_type = told["media"].items()
        kinds = ", ".join(f"{about['files']:,} {kind}" for kind, about in by_type) or "none"
        size = sum(about["bytes"] for _, about in by_type) / 1e6
        missing = sum(len(about["missing"]) for _, about in by_type)
        counts = f"{told['samples']:,}", f"{len(told['answers']):,}", f"{told['objects']:,}"
        table.add_row(Path(told["manifest"]).name, *counts, kinds, f"{size:.1f}", f"{missing:,}")
    console.print(table, crop=False)
    for told in stats["manifests"]:
        name, answers = Path(told["manifest"]).name, told["answers"]
        common = [f"{text or '(none)'} {n:,}" for text, n in list(answers.items())[:SHOWN_ANSWERS]]
        more = f", and {len(answers) - SHOWN_ANSWERS:,} more" if len(answers) > len(common) else ""
        lines = [f"{name}: answers {', '.join(common)}{more}"]
        share = max(answers.values()) / told["samples"]
        lines.append(f"{name}: always the most frequent answer would be right in {share:.1%}")
        lines += [f"{name}: {problem}" for problem in told["broken"][:SHOWN_ANSWERS]]
        for about in told["media"].values():
            lines += about["missing"][:SHOWN_ANSWERS]
        console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    for pair in stats["shared"]:
        if pair["media"] or pair["objects"]:
            first, second = (Path(name).name for name in pair["manifests"])
            console.print(
                f"[yellow]{first} and {second} share {pair['media']:,} media and "
                f"{pair['objects']:,} things: what is tested was learnt from[/]"
            )
