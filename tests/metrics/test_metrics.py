import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from pathweave.errors import ManifestError
from pathweave.metrics import METRICS, mean, unit_of
from pathweave.metrics.bootstrap import interval, paired_difference
from pathweave.metrics.tokens import TOKENIZER
from tests.metrics.golden import captions

TEXTS = [
    "red cars on wet roads",
    "brown dogs run fast",
    "water flows down hills",
    "loud bells ring at noon",
]
REFERENCES = [[text] * 4 for text in TEXTS]
WITHOUT_JAVA = sorted(METRICS.keys() - {"meteor"})


def test_every_metric_goes_by_its_own_name():
    assert all(name == metric.name for name, metric in METRICS.items())


@pytest.mark.parametrize("name", ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d"])
def test_same_as_pycocoevalcap_from_the_caption_to_the_score(name):
    found, metric = captions(), METRICS[name]
    assert len(found["predictions"]) == 260
    statistics = metric.measure(found["predictions"], found["references"])
    assert metric.score(statistics) / 100 == pytest.approx(found[name]["score"], abs=1e-6)
    assert metric.tokenizer == TOKENIZER


@pytest.mark.parametrize("name", WITHOUT_JAVA)
def test_the_right_answer_is_the_best_and_another_worse(name):
    metric = METRICS[name]
    right = metric.measure(TEXTS, REFERENCES, [TEXTS] * 4)
    wrong = metric.measure(TEXTS[1:] + TEXTS[:1], REFERENCES, [TEXTS] * 4)
    assert right.shape == wrong.shape
    assert metric.score(right) == pytest.approx(metric.best)
    assert 0 <= metric.score(wrong) < 1e-3


@pytest.mark.parametrize("name", WITHOUT_JAVA)
def test_the_order_of_samples_does_not_matter(name):
    metric, found = METRICS[name], captions()
    given = [found["predictions"], found["references"], found["references"]]
    order = np.random.default_rng(0).permutation(len(found["predictions"]))
    statistics = metric.measure(*given)
    shuffled = metric.measure(*([values[i] for i in order] for values in given))
    np.testing.assert_allclose(statistics[order], shuffled, atol=1e-9)
    assert metric.score(shuffled) == pytest.approx(metric.score(statistics))


@pytest.mark.parametrize("name", WITHOUT_JAVA)
def test_a_metric_of_samples_is_their_mean(name):
    metric, found = METRICS[name], captions()
    statistics = metric.measure(found["predictions"], found["references"], found["references"])
    assert (metric.combine is mean) == (not name.startswith("bleu"))
    if metric.combine is mean:
        assert metric.score(statistics) == pytest.approx(statistics[:, 0].mean())


@pytest.mark.parametrize("name", WITHOUT_JAVA)
def test_intervals_and_differences_of_every_metric(name):
    metric, found = METRICS[name], captions()
    given = [found[field][::3] for field in ("predictions", "references", "references")]
    better = [references[0] for references in given[1]]
    statistics, others = metric.measure(*given), metric.measure(better, *given[1:])
    around = interval(statistics, metric.combine, num_resamples=100)
    assert around.low <= around.value <= around.high
    gained = paired_difference(others, statistics, metric.combine, num_resamples=100)
    gain = metric.score(others) - metric.score(statistics)
    assert gained.value == pytest.approx(gain)
    assert gained.low <= gain <= gained.high
    assert name.startswith("vqa") or gained.low > 0


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a"], [["a"], ["b"]], r"must be as many, and at least 1, got 1 and 2;"),
        ([], [], "got 0 and 0; evaluate a test set with samples"),
        (["a", "b"], [["a"], []], r"sample 1 must have a list of references .* got \[\]"),
        (["y"], ["yes"], "sample 0 must have a list .* got 'yes'; add"),
    ],
)
def test_every_metric_refuses_what_has_no_score(name, predictions, references, message):
    with pytest.raises(ManifestError, match=message):
        METRICS[name].measure(predictions, references)


def test_only_ranking_ranks():
    assert [m.name for m in METRICS.values() if m.ranks_choices] == ["ranking"]
    assert [m.name for m in METRICS.values() if m.takes_choices] == ["ranking", "word_match"]


def test_units():
    assert unit_of("exact_match") == unit_of("ranking") == "%"
    assert unit_of("cider_d") == "CIDEr-D x100"
    assert unit_of("bleu_4") == "BLEU-4 x100"
    assert unit_of("of old") == "of old"


def test_every_metric_is_explained():
    document = (Path(__file__).parents[2] / "docs/metrics.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(\w+)`", document, re.MULTILINE)
    assert named == list(METRICS)
    assert f"`{TOKENIZER}`" in document


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of pycocoevalcap
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
def test_the_golden_numbers_are_those_of_the_programs():
    pytest.importorskip("pycocoevalcap")
    from scripts.caption_golden import score

    found = captions()
    sets = list(zip(found["predictions"], found["references"], strict=True))
    again = score(sets)
    assert again == {name: found[name] for name in again}
    metric = METRICS["meteor"]
    statistics = metric.measure(found["predictions"], found["references"])
    assert metric.score(statistics) / 100 == pytest.approx(found["meteor"]["score"], abs=1e-6)
