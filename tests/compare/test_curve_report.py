"""How many samples are enough, said from made-up means."""

import io

import numpy as np
import pytest
from PIL import Image

from pathweave.compare.curve_report import Point, TestCurve, enough, picture, table
from pathweave.compare.tables import markdown
from pathweave.compare.uncertainty import SeedMean


def mean(value, both=None, seeds=3):
    """A mean over equal seeds with an interval of seeds and samples together."""
    value, both = float(value), None if both is None else float(both)
    half = both if seeds > 1 else None
    low, high = (None, None) if both is None else (value - both, value + both)
    return SeedMean(value, (value,) * seeds, half, low, high, both, 30)


def points(*scores, gains, noise=2.0, guess=20.0, seeds=3, difference=None):
    """Points of 10, 20, 40 ... samples; ``gains`` is the noise of every gain."""
    guess = float(guess)
    numbers = [10 * 2**i for i in range(len(scores))]
    return [
        Point(
            number,
            mean(score, noise, seeds),
            guess,
            {n: mean(score - s, gains, seeds) for n, s in zip(numbers[:i], scores, strict=False)},
            difference,
        )
        for i, (number, score) in enumerate(zip(numbers, scores, strict=True))
    ]


@pytest.mark.parametrize(
    ("scores", "options", "expected"),
    [
        ((40, 50, 60), {"gains": 4}, "not enough yet: 40 samples score 60.0, +10.0 ±4.0* over 20"),
        ((40, 50, 60), {"gains": 4}, "more are likely to help, try 80."),
        ((40, 58, 60), {"gains": 4}, "from 20 on no gain can be told from noise"),
        ((40, 58, 60), {"gains": 4}, "+2.0 ±4.0 over 20; up to +6.0 is possible."),
        ((58, 50, 60, 61), {"gains": 4}, "from 40 on no gain"),  # 20 is surely worse
        ((59, 58, 60), {"gains": 4}, "from 10 on no gain"),
        ((40, 60, 50), {"gains": 4}, "more samples did worse"),
        ((19, 20, 21), {"gains": 0.1}, "see that it learns at all before you count samples."),
        ((60,), {"gains": 4}, "give several numbers to see what more of them add"),
        ((40, 50), {"gains": 4, "seeds": 1}, "+10.0 ±4.0(*) over 10"),
        ((40, 50), {"gains": 4, "seeds": 1}, "(one seed: how much trainings vary is not known)."),
        ((40, 50), {"gains": None, "noise": None}, "no gain can be told from noise"),
    ],
)
def test_enough_is_where_nothing_more_is_surely_gained(scores, options, expected):
    assert expected in enough(points(*scores, **options))


@pytest.fixture
def curve():
    lower = points(30, 48, gains=5.0, difference=mean(-10.0, 3.0))
    return TestCurve("qa", "%", {"usual": points(40, 50, gains=12.0), "alone": lower})


def test_the_table_has_a_row_a_number_and_what_variants_differ_by(curve):
    shown = markdown(table("tilt", curve), 200).splitlines()
    assert [cell.strip() for cell in shown[2].strip("|").split("|")] == [
        *("samples", "usual", "gain", "alone", "gain", "alone - usual")
    ]
    assert [cell.strip() for cell in shown[-1].strip("|").split("|")] == [
        *("20", "50.0 ±2.0/2.0", "+10.0 ±12", "48.0 ±2.0/2.0", "+18.0 ±5.0*", "-10.0 ±3.0*")
    ]


def test_the_picture_shows_every_variant(curve):
    """Colours of the lines are found in it, and an axis of numbers of samples."""
    with Image.open(io.BytesIO(picture("made up", [curve, curve]))) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in ((0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)):
        assert (pixels == colour).all(1).sum() > 100
    assert image.width > 1200
