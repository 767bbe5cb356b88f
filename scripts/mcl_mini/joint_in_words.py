"""Can the language model compare at all? Joint questions with the true kinds in words, no media.

    python -m scripts.mcl_mini.joint_in_words --data data/mcl-mini

In place of each medium stands what it shows, such as "a chair": after the medium's cue, where the
base puts its tokens, or in sentences before the question. Answers are ranked by likelihood. This
is what paths that see everything could reach with this language model.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from pathweave.model.pathweave import PathWeave
from pathweave.model.rank import log_likelihoods
from pathweave.recipe.reading import load_recipe
from pathweave.runs.loading import load_base
from scripts.mcl_mini.balance import Row, media_of, question_of
from scripts.mcl_mini.check import JOINT, JOINT_TASKS, MODALITIES, rows
from scripts.mcl_mini.items import SPLITS
from scripts.mcl_mini.joint import media

RECIPE = Path(__file__).parents[2] / "recipes" / "mcl_mini.yaml"
BATCH = 32

Wording = Callable[[str, Sequence[tuple[str, str]]], str]


def after_cues(question: str, shown: Sequence[tuple[str, str]]) -> str:
    """Lay out question, cues and kinds as the base lays out question, cues and tokens.

    Example:
        >>> after_cues("Is it a bed?", [("depth:", "a bed"), ("3d:", "a lamp")])
        'Is it a bed? depth: a bed 3d: a lamp'
    """
    return " ".join([question, *(f"{cue} {kind}" for cue, kind in shown)])


def in_sentences(question: str, shown: Sequence[tuple[str, str]]) -> str:
    """Say what the two show, then ask.

    Example:
        >>> in_sentences("Which one is a bed?", [("depth:", "a bed"), ("3d:", "a lamp")])
        'The first is a bed. The second is a lamp. Which one is a bed? Answer:'
    """
    (_, first), (_, second) = shown
    return f"The first is {first}. The second is {second}. {question} Answer:"


WORDINGS: dict[str, Wording] = {"after cues": after_cues, "in sentences": in_sentences}


def true_kinds(data: Path) -> dict[str, str]:
    """Path of a medium, as joint manifests write it -> the kind of thing that it shows."""
    return {
        f"../{modality}/media.parquet#{shown.key}": shown.kind
        for modality in MODALITIES
        for split in SPLITS
        for shown in media(data, modality, split)
    }


def score(model: PathWeave, table: Sequence[Row], questions: Sequence[str]) -> float:
    """Percent of questions whose right answer is the likeliest of the choices."""
    asked: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
    for row, question in zip(table, questions, strict=True):
        asked[tuple(row["choices"])].append((question, row["references"][0]))
    right = 0
    for choices, pairs in asked.items():
        for start in range(0, len(pairs), BATCH):
            batch = pairs[start : start + BATCH]
            found = log_likelihoods(model, [[question] for question, _ in batch], choices)
            best = found.argmax(1).tolist()
            right += sum(choices[i] == truth for i, (_, truth) in zip(best, batch, strict=True))
    return 100 * right / len(table)


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", default="mini", help="base, or directory of one")
    arguments = parser.parse_args()
    recipe = load_recipe(RECIPE)
    model = PathWeave(load_base(arguments.base)).eval()
    kinds = true_kinds(arguments.data)
    print(f"| set | {' | '.join(WORDINGS)} | samples |")
    print("|---" * (2 + len(WORDINGS)) + "|")
    for task in JOINT_TASKS:
        table = rows(arguments.data / JOINT / f"{task}-test.parquet")
        shown = [
            [(recipe.modalities[part["type"]].cue, kinds[part["path"]]) for part in media_of(row)]
            for row in table
        ]
        cells = []
        for wording in WORDINGS.values():
            asked = [wording(question_of(r), s) for r, s in zip(table, shown, strict=True)]
            cells.append(f"{score(model, table, asked):.1f}")
        print(f"| {task}-test | {' | '.join(cells)} | {len(table):,} |", flush=True)


if __name__ == "__main__":
    main()
