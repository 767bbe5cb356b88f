"""Samples that show two sensors at once, over the readings that a tiny recipe has written."""

import json
from itertools import product
from pathlib import Path

from pathweave.data.manifest import write_manifest

QUESTION = "Are they alike?"


def write_joint_data(directory: Path, first: str, second: str, count: int = 6) -> None:
    """Blocks of four: a low and a high reading of each sensor in all combinations.

    Every reading comes once with "yes" and once with "no".
    """
    for split in ("train", "test"):
        rows = []
        for block, left, right in product(range(count), (0, 1), (0, 1)):
            media = [
                {"type": name, "path": f"{name}-{split}-{2 * block + which}.npy"}
                for name, which in ((first, left), (second, right))
            ]
            asked = [*media, {"type": "text", "text": QUESTION}]
            answer = "yes" if left == right else "no"
            rows.append(
                {
                    "id": f"{split}-{block}-{left}{right}",
                    "messages": [
                        {"role": "user", "content": asked},
                        {"role": "assistant", "content": answer},
                    ],
                    "choices": ["yes", "no"],
                    "licence": "CC0-1.0",
                }
            )
        write_manifest(directory / f"both-{split}.jsonl", rows)


def with_joint(recipe: Path, *reads: str, **fields) -> Path:
    """The same recipe with a stage at the end that reads several sensors, beside the first."""
    tree = json.loads(recipe.read_text(encoding="utf-8"))
    tree["modalities"]["both"] = {
        "reads": list(reads),
        "train": {"qa": {"manifest": "both-train.jsonl"}},
        "test": {"qa": {"manifest": "both-test.jsonl", "metric": "ranking"}},
        **fields,
    }
    tree["curriculum"].append("both")
    added = recipe.with_name("joint.yaml")
    added.write_text(json.dumps(tree), encoding="utf-8")
    return added
