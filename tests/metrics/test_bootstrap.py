import numpy as np
import pytest

from pathweave.errors import ManifestError
from pathweave.metrics import METRICS, bootstrap, mean
from pathweave.metrics.bleu import bleu, bleu_statistics
from pathweave.metrics.bootstrap import Column, draw_scores, interval, paired_difference


def scores(count=200, seed=0):
    return np.random.default_rng(seed).normal(60, 20, size=(count, 1))


def bleu_2(totals, _):
    return bleu(totals, 2)


def resample(values, combine, clusters=None, **options):
    """The scores of the resamples of one system."""
    return draw_scores([Column(values, combine, clusters)], **options)[0][1:]


def ends(found):
    return found.low, found.value, found.high


def test_the_width_is_that_of_the_normal_approximation():
    values = scores(400)
    found = interval(values, mean)
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
    assert found.low < found.value < found.high
    assert found.num_clusters == 400


def test_ninety_five_percent_of_the_intervals_hold_the_truth():
    holds = []
    for seed in range(200):
        found = interval(scores(50, seed), mean, num_resamples=200)
        holds.append(found.low <= 60 <= found.high)
    assert 0.9 <= np.mean(holds) <= 0.98


def test_views_of_a_thing_add_no_certainty():
    values = scores(60)
    views = values.repeat(4, axis=0)
    objects = [f"chair {i // 4}" for i in range(240)]
    assert ends(interval(views, mean, objects)) == pytest.approx(ends(interval(values, mean)))
    narrow, wide = interval(views, mean), interval(views, mean, objects)
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(2, rel=0.15)


def test_the_order_of_the_things_does_not_matter_for_what_they_are():
    values = np.array([[0.0], [100.0], [0.0], [100.0]])
    assert interval(values, mean, ["a", "b", "a", "b"]).low == 0.0
    assert interval(values, mean, ["a", "a", "b", "b"]).low == 50.0


def test_things_of_unequal_size():
    """Drawing the large thing twice gives the mean over its samples, not over things."""
    values = np.array([[100.0], [0.0], [0.0], [0.0]])
    drawn = resample(values, mean, ["a", "b", "b", "b"])
    assert set(np.round(drawn)) == {0.0, 25.0, 100.0}


def test_resamples_of_a_corpus_metric_are_those_of_scoring_again():
    predictions = ["a cat sat on it", "two red dogs run"]
    references = [["the cat sat on a mat"], ["two dogs run fast", "dogs"]]
    again = {
        round(float(bleu_2(bleu_statistics(p, r).sum(0)[None], None)[0]), 6)
        for i, j in ((0, 0), (0, 1), (1, 1))
        for p, r in [([predictions[i], predictions[j]], [references[i], references[j]])]
    }
    statistics = bleu_statistics(predictions, references)
    drawn = resample(statistics, bleu_2, num_resamples=100)
    assert {round(float(value), 6) for value in drawn} == again
    assert len(again) == 3


def test_the_same_seed_gives_the_same_draws():
    values = scores()
    assert np.array_equal(resample(values, mean), resample(values, mean))
    assert not np.array_equal(resample(values, mean), resample(values, mean, seed=1))
    assert resample(values, mean, num_resamples=7).shape == (7,)


def test_large_sets_are_drawn_in_blocks(monkeypatch):
    values = scores()
    whole = resample(values, mean)
    monkeypatch.setattr(bootstrap, "_BLOCK", 300 * len(values))
    np.testing.assert_allclose(resample(values, mean), whole)


def test_a_paired_difference():
    first, noise = scores(), scores(seed=1) / 20
    same = paired_difference(first, first, mean)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    shifted = paired_difference(first + 5, first, mean)
    assert (shifted.low, shifted.high) == pytest.approx((5, 5))
    paired = paired_difference(first + noise, first, mean)
    alone = interval(first, mean)
    assert paired.high - paired.low < (alone.high - alone.low) / 10


def test_a_paired_difference_is_clustered():
    first, second = scores(60), scores(60, seed=1)
    views = first.repeat(4, axis=0), second.repeat(4, axis=0)
    objects = [i // 4 for i in range(240)]
    found = paired_difference(*views, mean, objects)
    assert ends(found) == pytest.approx(ends(paired_difference(first, second, mean)))
    assert found.num_clusters == 60


def test_draws_of_equal_seed_are_paired_so_that_they_may_be_added():
    first, second = scores(), scores(seed=1)
    both = resample(first, mean) + resample(second, mean)
    np.testing.assert_allclose(resample(first + second, mean), both)


@pytest.mark.parametrize("size", [0, 1])
def test_too_few_things(size):
    with pytest.raises(ManifestError, match=rf"at least 2 objects, got {size}; evaluate more"):
        interval(scores(size), mean)
    with pytest.raises(ManifestError, match=r"at least 2 objects, got 1; .* field 'object'"):
        interval(scores(3), mean, ["a", "a", "a"])


def test_wrong_arguments():
    with pytest.raises(ManifestError, match=r"the same samples to be compared, got 3 and 2"):
        paired_difference(scores(3), scores(2), mean)
    with pytest.raises(ManifestError, match=r"one object a sample, got 2 for 3 samples"):
        interval(scores(3), mean, ["a", "b"])


def test_sets_that_show_the_same_things_are_drawn_together():
    values, things = np.arange(20.0)[:, None], list(range(20))
    qa, caption = draw_scores(
        [Column(values, mean, things), Column(values[::-1], mean, things[::-1])]
    )
    assert caption == pytest.approx(qa)
    others = [thing + 100 for thing in things]
    qa, caption = draw_scores([Column(values, mean, things), Column(values, mean, others)])
    assert abs(np.corrcoef(qa[1:], caption[1:])[0, 1]) < 0.2


def test_a_draw_begins_with_the_score_of_the_samples():
    metric = METRICS["bleu_2"]
    said, meant = ["a red dog", "a cat", "the red hat"], [["a red dog"], ["the cat"], ["a red hat"]]
    statistics = metric.measure(said, meant)
    [drawn] = draw_scores([Column(statistics, metric.combine)], num_resamples=50)
    assert drawn[0] == metric.score(statistics)
    assert drawn.shape == (51,)


def test_a_draw_that_misses_a_set_scores_nothing():
    columns = [Column(np.ones((2, 1)), mean, [1, 2]), Column(np.ones((1, 1)), mean, [3])]
    qa, caption = draw_scores(columns, num_resamples=200)
    assert qa[0] == caption[0] == 1.0
    assert 0.1 < np.isnan(caption).mean() < 0.5
    assert set(caption[np.isfinite(caption)]) == {1.0}
