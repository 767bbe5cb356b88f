"""Intervals over seeds and samples: against tables, by hand, and against simulated truth."""

import numpy as np
import pytest

from pathweave.compare.uncertainty import half_width, mean_over_seeds


def with_draws(values, noise):
    """Scores of seeds, and of resamples that are off by ``noise``."""
    values = np.array(values)[:, None]
    return np.concatenate([values, values + noise], axis=1)


@pytest.mark.parametrize(
    ("freedom", "expected"),  # of a printed table
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (120, 1.980)],
)
def test_t_is_that_of_the_table(freedom, expected):
    assert half_width(1.0, freedom) == pytest.approx(expected, abs=5e-4)
    assert half_width(4.0, freedom) == pytest.approx(2 * expected, abs=1e-3)
    assert half_width(0.0, freedom) == 0.0


def test_the_interval_over_seeds_is_that_of_student():
    # Standard deviation 2, three seeds: 4.303 * 2 / sqrt(3).
    three = mean_over_seeds(np.array([[60.0], [62.0], [64.0]]), num_objects=1)
    assert three.seeds == three.both == pytest.approx(4.9686, abs=1e-3)
    assert mean_over_seeds(np.array([[5.0], [5.0]]), num_objects=1).seeds == 0.0


def test_two_errors_add_up_each_with_its_own_degrees_of_freedom():
    # Over three seeds 4.303 * 2 / sqrt(3), over samples 2.262 * 3 (ten objects).
    draws = np.array([-1.0, 1.0] * 500) * 3
    found = mean_over_seeds(with_draws([60.0, 62.0, 64.0], draws), num_objects=10)
    assert found.both == pytest.approx(np.hypot(4.9686, 2.262 * 3), abs=0.01)


@pytest.mark.parametrize("num_seeds", [2, 3])
@pytest.mark.parametrize("spread", [0.3, 0.7, 2.4])  # of seeds; that of the samples' mean is 0.55
def test_the_interval_holds_the_truth_as_often_as_it_says(num_seeds, spread):
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        # Few seeds and thirty objects, both by chance; the truth is 0.
        objects = random.normal(0, 3, 30)
        seeds = objects.mean() + random.normal(0, spread, num_seeds)
        drawn = objects[random.integers(0, 30, (80, 30))].mean(1)
        found = mean_over_seeds(with_draws(seeds, drawn - objects.mean()), 30)
        held += abs(found.value) <= found.both
    assert held / 400 >= 0.93


def test_an_estimate_is_the_mean_over_seeds_with_both_intervals():
    scores = with_draws([60.0, 64.0], np.linspace(-50, 50, 1001))
    found = mean_over_seeds(scores, num_objects=12)
    assert (found.value, found.per_seed, found.num_objects) == (62.0, (60.0, 64.0), 12)
    assert found.seeds == pytest.approx(12.706 * 2, abs=0.01)
    assert (found.low, found.high) == pytest.approx((14.5, 109.5))
    assert found.samples == pytest.approx(47.5)
    one = mean_over_seeds(np.array([[60.0, 60.0]]), num_objects=1)
    assert (one.seeds, one.low, one.samples, one.both) == (None, None, None, None)


@pytest.mark.parametrize(
    ("values", "spread", "verdict"),
    [
        ([10.0, 10.2, 9.9], 1.0, "yes"),
        ([10.0, 10.2, 9.9], 30.0, "no"),
        ([10.0, -8.0, 9.0], 1.0, "no"),
        ([0.0, 0.0, 0.0], 0.0, "identical"),
        ([2.0, 2.0], 0.0, "yes"),
        ([10.0], 1.0, "1 seed"),
        ([10.0], 30.0, "no"),
    ],
)
def test_a_difference_is_judged_by_both_kinds_of_uncertainty(values, spread, verdict):
    scores = with_draws(values, np.linspace(-spread, spread, 101))
    assert mean_over_seeds(scores, num_objects=50).verdict == verdict


def test_one_seed_and_one_object_tell_nothing():
    assert mean_over_seeds(np.full((1, 9), 3.0), num_objects=1).verdict == "unknown"


def test_a_resample_without_a_score_is_left_out():
    found = mean_over_seeds(np.array([[2.0, 1.0, 2.0, np.nan, 3.0]]), num_objects=4)
    assert found.both == pytest.approx(half_width(1.0, 3))
