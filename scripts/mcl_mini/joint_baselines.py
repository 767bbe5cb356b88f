"""What the joint questions give away, and what is reached by asking about each medium alone.

    python -m scripts.mcl_mini.joint_baselines --data data/mcl-mini
    python -m scripts.mcl_mini.joint_baselines --data data/mcl-mini --predictions DIR

The first table holds bounds: the most that anyone can score who is shown so much. The second takes
the answers that a run gave to the questions and captions of the single modalities (DIR is
`predictions/whole` of the run), and answers the joint questions from them by rule: what its paths
see, without any joint reasoning.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from scripts.mcl_mini.balance import Row, media_of, most_common, most_told, question_of
from scripts.mcl_mini.check import JOINT, JOINT_TASKS, MODALITIES, rows
from scripts.mcl_mini.items import SPLITS
from scripts.mcl_mini.joint import FIRST, answer_about, asked_kind, kind_of

SHOWN = {"question": (), "and first": (0,), "and second": (1,), "and both": (0, 1)}


def bounds(table: list[Row]) -> list[float]:
    """Percent right with one answer to all, then the most with the question and some media."""
    return [most_common(table), *(most_told(table, shown) for shown in SHOWN.values())]


def seen_kinds(predictions: Path) -> dict[str, str]:
    """Path of a medium, as joint manifests write it -> the kind of thing that a run called it."""
    kinds = {}
    for modality in MODALITIES:
        # Of a medium with a question and a caption, the answer to the question counts.
        for task in ("caption", "qa"):
            file = predictions / f"{modality}-{task}.jsonl"
            for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
                answered = json.loads(line)
                key = answered["id"].removeprefix(f"{modality}-{task}-")
                kinds[f"../{modality}/media.parquet#{key}"] = kind_of(answered["answer"])
    return kinds


def by_rule(table: list[Row], kinds: Mapping[str, str]) -> tuple[float, int]:
    """Percent right by rule from what single media were called, and the samples so answered."""
    right = covered = 0
    for row in table:
        paths = [part["path"] for part in media_of(row)]
        if not all(path in kinds for path in paths):
            continue
        first, second = (kinds[path] for path in paths)
        answer = answer_about(first, second, asked_kind(question_of(row)))
        # Who has seen one kind twice must still pick one of the two.
        answer = answer if answer in row["choices"] else FIRST
        covered += 1
        right += answer == row["references"][0]
    return 100 * right / max(covered, 1), covered


def main() -> None:
    """Prints both tables in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--predictions", type=Path, help="answers of a run to whole test sets")
    arguments = parser.parse_args()
    print(f"| set | samples | couples | media | one answer | {' | '.join(SHOWN)} |")
    print("|---" * (5 + len(SHOWN)) + "|")
    for task in JOINT_TASKS:
        for split in SPLITS:
            table = rows(arguments.data / JOINT / f"{task}-{split}.parquet")
            couples = len({row["object"] for row in table})
            media = len({part["path"] for row in table for part in media_of(row)})
            cells = " | ".join(f"{value:.1f}" for value in bounds(table))
            print(f"| {task}-{split} | {len(table):,} | {couples} | {media} | {cells} |")
    if arguments.predictions is None:
        return
    kinds = seen_kinds(arguments.predictions)
    print("\n| set | by rule | samples |\n|---|---|---|")
    for task in JOINT_TASKS:
        table = rows(arguments.data / JOINT / f"{task}-test.parquet")
        score, covered = by_rule(table, kinds)
        print(f"| {task}-test | {score:.1f} | {covered:,} of {len(table):,} |")


if __name__ == "__main__":
    main()
