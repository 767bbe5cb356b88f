import sys

import numpy as np
import pytest
from PIL import Image

from pathweave.errors import PathWeaveError
from pathweave.evaluate.plot import plot
from pathweave.evaluate.scores import ScoreMatrix
from tests.evaluate.examples import CURRICULUM, example_results


@pytest.mark.parametrize("num_stages", [1, 2, 3])
@pytest.mark.parametrize("loss", [0.0, 20.0, -5.0])
def test_picture(tmp_path, loss, num_stages):
    plot(example_results(loss, num_stages), tmp_path / "report.png")
    picture = Image.open(tmp_path / "report.png")
    assert picture.format == "PNG"
    assert picture.width == 1800
    assert np.asarray(picture.convert("L")).std() > 10


def test_a_run_without_test_sets_has_a_picture_too(tmp_path):
    unscored = example_results().model_copy(
        update={"datasets": {}, "scores": ScoreMatrix(CURRICULUM).as_dict()}
    )
    plot(unscored, tmp_path / "report.png")
    with Image.open(tmp_path / "report.png") as picture:
        assert picture.width == 1800


def test_missing_library_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(PathWeaveError, match=r"matplotlib\.figure must .*'pathweave\[report\]'"):
        plot(example_results(), tmp_path / "report.png")
    assert list(tmp_path.iterdir()) == []
