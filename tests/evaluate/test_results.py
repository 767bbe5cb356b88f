import pytest

from pathweave.errors import RunError
from pathweave.evaluate.results import Results
from tests.evaluate.examples import example_results


def test_round_trip(tmp_path):
    results = example_results()
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results
    assert results.matrix.forgetting_mean(2) == 0.0


def test_trained_share():
    stage = example_results().stages[1]
    assert stage.trained == 1574
    assert stage.share == pytest.approx(1.0493, abs=1e-4)


def test_columns_and_finished_stages():
    results = example_results(num_stages=2)
    assert [(m, d.name) for m, d in results.columns][:3] == [
        ("see", "qa"),
        ("see", "caption"),
        ("watch", "qa"),
    ]
    assert results.finished_stages == [0, 1]


@pytest.mark.parametrize("content", [None, b"", b"{}", b"not json"])
def test_broken_file(tmp_path, content):
    path = tmp_path / "results.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=r"results\.json must hold the results of a run, got"):
        Results.load(path)
