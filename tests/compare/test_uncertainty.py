"""Intervals: against tables, against the bootstrap they extend, and against simulated truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.compare.draws import Column, draw_scores
from pathweave.compare.uncertainty import (
    difference,
    estimate,
    half_width,
    seed_interval,
    t_quantile,
)
from pathweave.evaluate.bootstrap import interval, paired_difference
from pathweave.evaluate.metrics import METRICS, mean


def with_draws(values, noise):
    """Scores of seeds, and of resamples that are off by ``noise``."""
    values = np.array(values)[:, None]
    return np.concatenate([values, values + noise], axis=1)


@pytest.mark.parametrize(
    ("freedom", "expected"),  # of a printed table
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (120, 1.980)],
)
def test_t_is_that_of_the_table(freedom, expected):
    assert t_quantile(float(freedom)) == pytest.approx(expected, abs=5e-4)


@given(st.floats(1, 900), st.floats(0.1, 50))
@settings(max_examples=30, deadline=None)
def test_t_falls_with_the_degrees_of_freedom(freedom, more):
    assert t_quantile(freedom) > t_quantile(freedom + more) > 1.96


def test_the_interval_over_seeds_is_that_of_student():
    # Standard deviation 2, three seeds: 4.303 * 2 / sqrt(3).
    assert seed_interval(np.array([60.0, 62.0, 64.0])) == pytest.approx(4.9686, abs=1e-3)
    assert seed_interval(np.array([60.0])) is None
    assert seed_interval(np.array([5.0, 5.0])) == 0.0


def test_two_errors_add_up_each_with_its_own_degrees_of_freedom():
    # Over three seeds 4.303 * 2 / sqrt(3), over samples 2.262 * 3 (ten objects).
    draws = np.array([-1.0, 1.0] * 500) * 3
    found = difference(with_draws([60.0, 62.0, 64.0], draws), num_objects=10)
    assert found.both == pytest.approx(np.hypot(4.9686, 2.262 * 3), abs=0.01)
    assert half_width(0.0, 3) == 0.0


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
        found = difference(with_draws(seeds, drawn - objects.mean()), 30)
        held += abs(found.estimate.value) <= found.both
    assert held / 400 >= 0.93


def test_an_estimate_is_the_mean_over_seeds_with_both_intervals():
    scores = with_draws([60.0, 64.0], np.linspace(-50, 50, 1001))
    found = estimate(scores, num_objects=12)
    assert (found.value, found.per_seed, found.num_objects) == (62.0, (60.0, 64.0), 12)
    assert found.seeds == pytest.approx(12.706 * 2, abs=0.01)
    assert (found.low, found.high) == pytest.approx((14.5, 109.5))
    assert found.samples == pytest.approx(47.5)
    one = estimate(np.array([[60.0, 60.0]]), num_objects=1)
    assert (one.seeds, one.low, one.samples) == (None, None, None)


@pytest.mark.parametrize(
    ("values", "spread", "verdict"),
    [
        ([10.0, 10.2, 9.9], 1.0, "yes"),
        ([10.0, 10.2, 9.9], 30.0, "no"),
        ([10.0, -8.0, 9.0], 1.0, "no"),
        ([0.0, 0.0, 0.0], 0.0, "equal"),
        ([2.0, 2.0], 0.0, "yes"),
        ([10.0], 1.0, "1 seed"),
        ([10.0], 30.0, "no"),
    ],
)
def test_a_difference_is_judged_by_both_kinds_of_noise(values, spread, verdict):
    scores = with_draws(values, np.linspace(-spread, spread, 101))
    assert difference(scores, num_objects=50).verdict == verdict


def test_one_seed_and_one_object_tell_nothing():
    assert difference(np.full((1, 9), 3.0), num_objects=1).verdict == "unknown"


def test_a_resample_without_a_score_is_left_out():
    found = difference(np.array([[2.0, 1.0, 2.0, np.nan, 3.0]]), num_objects=4)
    assert found.both == pytest.approx(half_width(1.0, 3))


# Draws


def test_draws_of_one_set_are_those_of_the_bootstrap():
    random = np.random.default_rng(3)
    objects = random.integers(0, 12, 50)
    first, second = random.random((2, 50, 1)) * 100
    columns = [Column("qa", s, mean) for s in (first, second)]
    one, two = draw_scores(columns, {"qa": objects}, num_resamples=400, seed=7)
    alone = interval(first, mean, objects.tolist(), num_resamples=400, seed=7)
    assert one[0] == pytest.approx(alone.value)
    assert np.quantile(one[1:], [0.025, 0.975]) == pytest.approx([alone.low, alone.high])
    pair = paired_difference(first, second, mean, objects.tolist(), num_resamples=400, seed=7)
    apart = np.quantile((one - two)[1:], [0.025, 0.975])
    assert apart == pytest.approx([pair.low, pair.high])


def test_sets_that_show_the_same_things_are_drawn_together():
    values = np.arange(20.0)[:, None]
    things = np.arange(20)
    columns = [Column("qa", values, mean), Column("caption", values[::-1], mean)]
    qa, caption = draw_scores(columns, {"qa": things, "caption": things[::-1].copy()})
    assert caption == pytest.approx(qa)
    columns = [Column("qa", values, mean), Column("caption", values, mean)]
    qa, caption = draw_scores(columns, {"qa": things, "caption": things + 100})
    assert abs(np.corrcoef(qa[1:], caption[1:])[0, 1]) < 0.2


def test_metrics_of_sums_are_combined_on_each_draw():
    metric = METRICS["bleu_2"]
    said, meant = ["a red dog", "a cat", "the red hat"], [["a red dog"], ["the cat"], ["a red hat"]]
    statistics = metric.measure(said, meant)
    [drawn] = draw_scores(
        [Column("c", statistics, metric.combine)], {"c": np.arange(3)}, num_resamples=50
    )
    assert drawn[0] == pytest.approx(metric.score(statistics))
    assert drawn.shape == (51,)
    assert drawn.std() > 0


def test_a_draw_that_misses_a_set_scores_nothing():
    columns = [Column("qa", np.ones((2, 1)), mean), Column("caption", np.ones((1, 1)), mean)]
    qa, caption = draw_scores(columns, {"qa": np.array([1, 2]), "caption": np.array([3])}, 200)
    assert qa[0] == caption[0] == 1.0
    assert 0.1 < np.isnan(caption).mean() < 0.5
    assert set(caption[np.isfinite(caption)]) == {1.0}
