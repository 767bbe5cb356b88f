import sys

import numpy as np
import pytest

from pathweave.errors import PathWeaveError
from pathweave.metrics.meteor import meteor, meteor_statistics
from tests.metrics.golden import captions


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a package and a Java in place that answer with given lines; return what was asked."""
    (tmp_path / "pycocoevalcap" / "meteor").mkdir(parents=True)
    (tmp_path / "pycocoevalcap" / "__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "bin").mkdir()
    monkeypatch.delitem(sys.modules, "pycocoevalcap", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    def answer(lines, ending="exit 0"):
        (tmp_path / "answers").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        java = tmp_path / "bin" / "java"
        java.write_text(
            f"#!/bin/sh\ncat > {tmp_path}/asked\ncat {tmp_path}/answers\n{ending}\n",
            encoding="utf-8",
        )
        java.chmod(0o755)
        return tmp_path / "asked"

    return answer


def test_scores_follow_from_the_answers_as_in_the_program(program):
    found = captions()
    asked = program(found["meteor"]["answers"])
    counts = meteor_statistics(found["predictions"], found["references"])
    np.testing.assert_allclose(meteor(counts) / 100, found["meteor"]["each"], atol=1e-6)
    whole = meteor(counts.sum(0)[None])[0] / 100
    assert whole == pytest.approx(found["meteor"]["score"], abs=1e-6)
    lines = asked.read_text(encoding="utf-8").splitlines()
    assert lines[-10].startswith(
        "SCORE ||| a dog which is n't small runs ||| the man 's dog ||| a man 's dog is n't here"
    )


def test_worked_by_hand():
    # "a cat sat" against "a cat sat on the mat": one function word of three, three of six; one
    # chunk. P = 1, R = (0.75 * 2 + 0.25) / (0.75 * 3 + 0.25 * 3) = 7 / 12.
    counts = np.zeros((1, 23))
    counts[0, :8] = [3, 6, 1, 3, 2, 2, 1, 1]
    counts[0, 20:] = [1, 3, 3]
    mean = 7 / 12 / (0.85 + 0.15 * 7 / 12)
    assert meteor(counts)[0] == pytest.approx(100 * mean * (1 - 0.6 * (1 / 3) ** 0.2))


def test_nothing_matched():
    assert meteor(np.zeros((2, 23))).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("lines", "ending", "message"),
    [
        ([], "exit 0", r"must answer 1 captions, got 0 answers and the message 'nothing'"),
        ([], "echo no memory >&2; exit 1", r"the message 'no memory'; it needs 2 GB"),
        (["1 2"], "exit 0", r"must answer 23 numbers a caption, got '1 2'; install pycocoevalcap"),
    ],
)
def test_a_program_that_fails(program, lines, ending, message):
    program(lines, ending)
    with pytest.raises(PathWeaveError, match=message):
        meteor_statistics(["a cat"], [["a dog"]])


def test_no_java(program, tmp_path, monkeypatch):
    program([])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PathWeaveError, match=r"must find Java .* got no command 'java'; install"):
        meteor_statistics(["a cat"], [["a dog"]])


def test_no_package(program, tmp_path, monkeypatch):
    program([])
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(PathWeaveError, match=r"must find the package pycocoevalcap .* pip install"):
        meteor_statistics(["a cat"], [["a dog"]])
