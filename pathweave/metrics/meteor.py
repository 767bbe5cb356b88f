"""METEOR 1.5 of captions, aligned by the original Java program.

Meteor Universal: Language Specific Translation Evaluation for Any Target Language (WMT 2014), as
coco-caption runs it: English, matches of equal words, stems, WordNet synonyms and paraphrases.
The program and its tables (62 MB, LGPL) come with the package pycocoevalcap. Its aligner is not
written again here: it goes beyond its paper (the one-word captions "dogs" and "dog" score 0 with
synonyms and paraphrases, and 0.6 without), so a copy would give other numbers under the same name.
What follows from the counts it returns, the score of a caption and of a set, is computed here.
"""

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from pathweave.errors import PathWeaveError
from pathweave.metrics.references import check_references
from pathweave.metrics.tokens import tokenize

# English parameters of the program: Fmean, penalty, share of content words; weights of equal
# words, stems, synonyms, paraphrases.
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.20, 0.60, 0.75
WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])

NUM_STATISTICS = 23


def meteor_statistics(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> Float[np.ndarray, "samples 23"]:
    """Return the counts of each sample, against the reference that suits it best.

    They are, each for the prediction and then the reference: words; function words; matched
    content and function words of each kind of match; then chunks, and all matched words. A caption
    that is its reference has 0 chunks, as where the program sums over a set. Needs 2 GB of memory
    and about ten seconds to start.

    Args:
        predictions: One caption a sample.
        references: All reference captions of each sample, in the same order.

    Raises:
        ManifestError: If there is no sample, a sample without a reference, or the lengths differ.
        PathWeaveError: If the package or Java is not installed, or the program fails.
    """
    check_references(predictions, references)
    lines = [
        " ||| ".join(["SCORE", *(" ".join(tokenize(text)) for text in (*accepted, prediction))])
        for prediction, accepted in zip(predictions, references, strict=True)
    ]
    answers = _run(lines)
    rows = [[float(count) for count in answer.split()] for answer in answers]
    for answer, row in zip(answers, rows, strict=True):
        if len(row) != NUM_STATISTICS:
            raise PathWeaveError(
                f"meteor-1.5.jar must answer {NUM_STATISTICS} numbers a caption, got "
                f"{answer!r:.100}; install pycocoevalcap 1.2"
            )
    counts = np.array(rows)
    is_equal = (counts[:, 20] == 1) & (counts[:, 21:] == counts[:, :2]).all(1)
    counts[is_equal, 20] = 0
    return counts


def meteor(totals: Float[np.ndarray, "sets 23"]) -> Float[np.ndarray, " sets"]:
    """Return METEOR, in percent, from statistics summed over the samples of each set.

    METEOR = (1 - gamma (chunks / matches)^beta) P R / (alpha P + (1 - alpha) R), where precision
    and recall weigh content words by delta, function words by 1 - delta.

    Args:
        totals: Sums of what ``meteor_statistics`` gives.
    """
    num_function = totals[:, 2:4]
    length = DELTA * (totals[:, :2] - num_function) + (1 - DELTA) * num_function
    matched = totals[:, 4:20].reshape(-1, 4, 2, 2)  # kind of match, content or function, side
    weighted = np.einsum("skfi,k,f->si", matched, WEIGHTS, np.array([DELTA, 1 - DELTA]))
    precision, recall = _ratio(weighted, length).T
    mean = _ratio(precision * recall, ALPHA * precision + (1 - ALPHA) * recall)
    fragments = _ratio(totals[:, 20], totals[:, 21:].mean(1))
    return 100.0 * mean * (1 - GAMMA * fragments**BETA)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)


def _run(lines: list[str]) -> list[str]:
    """Return the program's answer to each line."""
    java, found = shutil.which("java"), importlib.util.find_spec("pycocoevalcap")
    if java is None:
        raise PathWeaveError(
            "meteor must find Java to run its program, got no command 'java'; install a Java "
            "runtime or choose another metric"
        )
    if found is None or not found.submodule_search_locations:
        raise PathWeaveError(
            "meteor must find the package pycocoevalcap for its program, got none; run "
            "pip install pycocoevalcap==1.2 or choose another metric"
        )
    folder = Path(found.submodule_search_locations[0]) / "meteor"
    command = [java, "-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", "meteor-1.5.jar", "-", "-"]
    command += ["-stdio", "-l", "en", "-norm"]
    done = subprocess.run(
        command, cwd=folder, input="\n".join(lines) + "\n", text=True, encoding="utf-8",
        capture_output=True,
    )  # fmt: skip
    answers = done.stdout.splitlines()
    if done.returncode or len(answers) != len(lines):
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise PathWeaveError(
            f"meteor-1.5.jar must answer {len(lines)} captions, got {len(answers)} answers and "
            f"the message {said!r:.200}; it needs 2 GB of memory and Java 8 or later"
        )
    return answers
