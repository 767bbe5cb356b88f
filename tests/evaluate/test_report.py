import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from pathweave.evaluate.plot import plot
from pathweave.evaluate.report import points, tables
from pathweave.evaluate.results import Results
from pathweave.evaluate.scores import ScoreMatrix
from tests.evaluate.examples import example_results


def text_of(results) -> str:
    console = Console(file=io.StringIO(), width=200)
    for table in tables(results):
        console.print(table)
    return console.file.getvalue()


def row_of(text: str, first: str, number: int = 0) -> list[str]:
    """Cells of the number-th row whose first cell is this; empty cells do not show."""
    rows = [re.split(r" {2,}|\s*\u2502\s*", line.strip(" \u2502")) for line in text.split("\n")]
    return [[cell for cell in row[1:] if cell] for row in rows if row[0] == first][number]


def test_tables():
    text = text_of(example_results(loss=20.0))
    assert row_of(text, "see qa") == ["80.0", "60.0", "40.0", "82.7", "12.5"]
    assert row_of(text, "hear caption") == ["110.0"]
    assert row_of(text, "hear") == ["94.0", "15.0", "20.0", "10.0"]
    parameters = ["1,000", "128", "20", "500", "1,648", "1.1%", "12s", "1.2MB"]
    lines = [line.split() for line in text.split("\n") if "MB" in line]
    assert lines[2] == ["hear", *parameters]
    words = " ".join(text.split())
    assert "caption in CIDEr-D x100" in words
    assert "0 see, 1 watch, 2 hear" in words


def test_modalities_learnt_at_once_have_nothing_to_lose_yet(tmp_path):
    """A method that learns all together is scored once, after the last stage."""
    results = example_results()
    matrix = ScoreMatrix(results.curriculum)
    for modality, dataset in results.columns:
        matrix.add(2, modality, dataset.name, 50.0)
    results = results.model_copy(update={"scores": matrix.as_dict()})
    assert row_of(text_of(results), "hear") == ["50.0"]  # T, and no F
    plot(results, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_a_set_that_was_scored_in_part_says_so():
    results = example_results()
    results.datasets["see"][0].num_whole, results.datasets["see"][0].num_total = 1381, 1500
    words = " ".join(text_of(results).split())
    assert "see qa 1,381 of 1,500" in words
    results.datasets["see"][0].num_whole = 1500
    assert "samples there are" not in text_of(results)


def test_unfinished_run():
    text = text_of(example_results(num_stages=1))
    assert row_of(text, "see qa") == ["80.0", "82.7", "12.5"]


@pytest.mark.parametrize("width", [80, 100])
def test_the_tables_of_five_modalities_fit_a_terminal(width):
    """Every word of every heading and cell is there, whole."""
    results = Results.load(Path(__file__).parents[2] / "docs/results/mcl_mini.json")
    for table in tables(results):
        console = Console(file=io.StringIO(), width=width)
        console.print(table)
        shown = re.split(r"[\s\u2502\u2503]+", console.file.getvalue())
        cells = [text for column in table.columns for text in (column.header, *column.cells)]
        assert {*" ".join(map(str, cells)).split()} <= {*shown}


def test_run_without_stages():
    results = example_results().model_copy(update={"stages": []})
    assert len(tables(results)) == 2


@pytest.mark.parametrize(("value", "text"), [(-0.01, "0.0"), (0.0, "0.0"), (-3.25, "-3.2")])
def test_points(value, text):
    assert points(value) == text
