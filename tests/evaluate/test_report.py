import io

import pytest
from rich.console import Console

from pathweave.evaluate.report import points, tables
from tests.evaluate.examples import example_results


def text_of(results) -> str:
    console = Console(file=io.StringIO(), width=200)
    for table in tables(results):
        console.print(table)
    return console.file.getvalue()


def cells_of(text: str, first: str) -> list[list[str]]:
    rows = [
        [cell.strip() for cell in line.strip().strip("\u2502").split("\u2502")]
        for line in text.split("\n")
    ]
    return [row[1:] for row in rows if row[0] == first]


def test_tables():
    text = text_of(example_results(loss=20.0))
    transfer, parameters = cells_of(text, "hear")
    assert cells_of(text, "see qa") == [["%", "80.0", "60.0", "40.0", "82.7", "12.5"]]
    assert cells_of(text, "hear caption") == [["CIDEr-D x100", "", "", "110.0", "", ""]]
    assert transfer == ["94.0", "15.0", "20.0", "10.0"]
    assert parameters == [
        *("1,000", "128", "20", "500", "1,648", "150,000", "1.10 %", "12 s", "1.25 MB")
    ]


def test_unfinished_run():
    text = text_of(example_results(num_stages=1))
    assert cells_of(text, "see qa")[0] == ["%", "80.0", "", "", "82.7", "12.5"]
    assert cells_of(text, "watch") == []


def test_run_without_stages():
    results = example_results().model_copy(update={"stages": []})
    assert len(tables(results)) == 2


@pytest.mark.parametrize(("value", "text"), [(-0.01, "0.0"), (0.0, "0.0"), (-3.25, "-3.2")])
def test_points(value, text):
    assert points(value) == text
