"""Golden numbers of the caption metrics, from pycocoevalcap's own programs.

    pip install pycocoevalcap==1.2        # and Java, for its tokenizer
    python -m scripts.caption_golden --data data/mcl-mini --out tests/golden/captions.json

Caption sets are drawn from the test sets of MCL-mini: the references of a sample, and as its
prediction a caption of another sample of the same class, some cut short and some run together, so
that lengths differ. A few sets are written here for their punctuation and for captions without a
word. The file holds the captions as they are and the scores that the programs give them, of each
caption and of the whole set.
"""

import argparse
import json
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from pathweave.data.manifest import Manifest

PER_MODALITY = 50
SEED = 0
WRITTEN = [
    ("A man's dog isn't here; it ran off.", ["A dog, which isn't small, runs.", "The man's dog."]),
    ("two T-shirts (red/blue) at 3:00", ["Two red T-shirts and a blue one", "2 shirts at 3.30"]),
    ('"Hello", she said.', ["a woman says hello", "She's saying: 'Hello!'"]),
    ("", ["rain falls on a roof", "rain"]),
    (".", ["a bell rings twice"]),
    ("the the the the the", ["the bell", "a bell is the loudest of all the bells there are"]),
    (
        "children can't stop laughing, and they're gonna cry",
        ["Children laugh.", "they cannot stop"],
    ),
    ("an engine idles", ["an engine idles", "an engine idles", "a motor is running"]),
    ("Mr. Smith walks 1,000 m up St. John's Rd.", ["mr. smith walks", "A man walks 1,000 m"]),
    ("a well-lit room with a so-called chaise-longue", ["a well lit room", "a chaise-longue"]),
]


def draw(folder: Path, rng: np.random.Generator) -> list[tuple[str, list[str]]]:
    """Return a prediction and references of each drawn sample of a modality."""
    answers = {
        sample.prompt[0].path: sample.answer for sample in Manifest(folder / "qa-test.parquet")
    }
    samples = list(Manifest(folder / "caption-test.parquet"))
    by_class = defaultdict(list)
    for sample in samples:
        by_class[answers.get(sample.prompt[0].path)].append(sample)
    drawn = []
    for number, i in enumerate(rng.permutation(len(samples))[:PER_MODALITY]):
        sample = samples[i]
        others = by_class[answers.get(sample.prompt[0].path)]
        first, second = (others[j] for j in rng.integers(len(others), size=2))
        words = str(rng.choice(first.references)).split()
        if number % 5 == 1:
            words = words[: max(1, len(words) // 2)]
        if number % 5 == 2:
            words += ["and", *str(rng.choice(second.references)).split()]
        drawn.append((" ".join(words), list(sample.references)))
    return drawn


def load(module: str, name: str) -> Any:  # noqa: ANN401 (of an optional library)
    """Return a class of pycocoevalcap."""
    return getattr(import_module(f"pycocoevalcap.{module}"), name)


def score(sets: list[tuple[str, list[str]]]) -> dict[str, Any]:
    """Return the words and the scores that pycocoevalcap gives, on its scale."""
    tokenizer = load("tokenizer.ptbtokenizer", "PTBTokenizer")()
    predictions = tokenizer.tokenize({i: [{"caption": p}] for i, (p, _) in enumerate(sets)})
    references = tokenizer.tokenize(
        {i: [{"caption": r} for r in accepted] for i, (_, accepted) in enumerate(sets)}
    )
    found: dict[str, Any] = {"words": [predictions[i][0] for i in predictions]}
    bleu, _ = load("bleu.bleu", "Bleu")(4).compute_score(references, predictions, verbose=0)
    found |= {f"bleu_{n}": {"score": value} for n, value in enumerate(bleu, start=1)}
    scorers = {
        "rouge_l": load("rouge.rouge", "Rouge")(),
        "cider_d": load("cider.cider", "Cider")(),
        "meteor": load("meteor.meteor", "Meteor")(),
    }
    for name, scorer in scorers.items():
        value, each = scorer.compute_score(references, predictions)
        found[name] = {"score": float(value), "each": [float(v) for v in each]}
    found["meteor"]["answers"] = [
        scorers["meteor"]._stat(predictions[i][0], references[i]) for i in predictions
    ]
    return found


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rng = np.random.default_rng(SEED)
    sets = [
        pair
        for folder in sorted(arguments.data.iterdir())
        if folder.is_dir() and (folder / "caption-test.parquet").exists()
        for pair in draw(folder, rng)
    ]
    sets += WRITTEN
    golden = {
        "predictions": [p for p, _ in sets],
        "references": [r for _, r in sets],
        **score(sets),
    }
    arguments.out.write_text(
        json.dumps(golden, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    print(f"{len(sets)} caption sets in {arguments.out}")


if __name__ == "__main__":
    main()
