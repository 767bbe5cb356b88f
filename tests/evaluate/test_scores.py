import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathweave.errors import RunError
from pathweave.evaluate.scores import ScoreMatrix

CURRICULUM = ["see", "watch", "hear"]


def matrix(rows):
    """Rows: one a stage; each a list of one list of scores a modality; test sets n0, n1, ..."""
    scores = ScoreMatrix(CURRICULUM[: len(rows)])
    for stage, row in enumerate(rows):
        for modality, values in zip(CURRICULUM, row, strict=False):
            for n, value in enumerate(values):
                scores.add(stage, modality, f"n{n}", value)
    return scores


WORKED = [
    [[80.0, 120.0]],
    [[50.0, 130.0], [60.0]],
    [[70.0, 100.0], [65.0], [40.0, 20.0, 30.0]],
]


def test_transfer():
    scores = matrix(WORKED)
    assert [scores.transfer(m) for m in range(3)] == [100.0, 60.0, 30.0]
    assert scores.dataset_transfer("see", "n1") == 120.0
    assert scores.dataset_transfer("hear", "n0") == 40.0


def test_forgetting():
    scores = matrix(WORKED)
    assert scores.forgetting(1, "see") == ((80 - 50) + (120 - 130)) / 2
    # The best so far counts, not the score right after learning.
    assert scores.forgetting(2, "see") == ((80 - 70) + (130 - 100)) / 2
    assert scores.forgetting(2, "watch") == 60 - 65
    assert scores.forgetting_mean(1) == 10.0
    assert scores.forgetting_mean(2) == (20.0 - 5.0) / 2


def test_dataset_forgetting():
    scores = matrix(WORKED)
    assert scores.dataset_forgetting("see", "n0") == ((80 - 50) + (80 - 70)) / 2
    assert scores.dataset_forgetting("see", "n1") == ((120 - 130) + (130 - 100)) / 2
    assert scores.dataset_forgetting("watch", "n0") == -5.0


def test_scores_from_before_learning_count():
    scores = matrix(WORKED)
    scores.add(0, "watch", "n0", 90.0)
    assert scores.forgetting(2, "watch") == 90 - 65


def test_json_round_trip():
    scores = matrix(WORKED)
    again = ScoreMatrix.from_dict(json.loads(json.dumps(scores.as_dict())))
    assert again.as_dict() == scores.as_dict() != matrix(WORKED[:2]).as_dict()
    assert again.datasets("hear") == ["n0", "n1", "n2"]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda s: s.score(1, "see", "n9"), r"see/n9 after stage 1 \(watch\) must be known"),
        (lambda s: s.score(0, "smell", "n0"), "one of see, watch, hear, got 'smell'"),
        (lambda s: s.transfer(3), r"stage must be in \[0, 2\], got 3"),
        (lambda s: s.transfer(-1), r"stage must be in \[0, 2\], got -1"),
        (lambda s: s.forgetting_mean(0), "must follow a stage after the first, got stage 0"),
        (lambda s: s.forgetting(1, "watch"), r"measured after stage 1, .*, got stage 1"),
        (lambda s: s.dataset_forgetting("hear", "n0"), "got the last of the curriculum"),
        (lambda s: s.add(0, "see", "n0", float("nan")), "must be a finite number, got nan"),
        (lambda _: ScoreMatrix(["a", "a"]), "must name each modality once"),
        (lambda _: ScoreMatrix([]), "must name each modality once"),
        (lambda _: ScoreMatrix.from_dict({"scores": []}), "fields that as_dict writes"),
        (lambda _: ScoreMatrix(["a"]).transfer(0), "must have a scored test set, got none"),
    ],
)
def test_errors(ask, message):
    with pytest.raises(RunError, match=message):
        ask(matrix(WORKED))


def test_missing_entries_are_not_skipped():
    scores = matrix(WORKED[:1])
    scores = ScoreMatrix.from_dict(scores.as_dict() | {"curriculum": CURRICULUM})
    scores.add(2, "see", "n0", 80.0)
    scores.add(2, "see", "n1", 120.0)
    scores.add(1, "watch", "n0", 60.0)
    with pytest.raises(RunError, match=r"see/n0 after stage 1 \(watch\) must be known"):
        scores.forgetting(2, "see")


def test_modalities_learnt_at_once_are_scored_when_all_are_learnt():
    scores = ScoreMatrix(CURRICULUM)
    scores.add(0, "see", "n0", 80.0)
    for modality, score in zip(CURRICULUM, (50.0, 60.0, 70.0), strict=True):
        scores.add(2, modality, "n0", score)
    assert [scores.transfer(stage) for stage in range(3)] == [80.0, 60.0, 70.0]
    assert scores.forgetting(2, "see") == 30.0
    with pytest.raises(RunError, match="measured from an earlier score, got none before stage 2"):
        scores.forgetting(2, "watch")


def test_some_test_sets_alone_lack_what_was_never_entered():
    scores = matrix(WORKED).only({"see": ["n1"], "hear": ["n0", "n9"]})
    assert scores.transfer(0) == 120.0
    assert scores.forgetting(2, "see") == 130 - 100
    with pytest.raises(RunError, match="hear/n9 after stage 2"):
        scores.transfer(2)
    with pytest.raises(RunError, match="'watch' must have a scored test set, got none"):
        scores.transfer(1)


def test_arrays_are_scores_too():
    scores = ScoreMatrix(["see", "hear"])
    draws = {(0, "see"): [80.0, 10.0], (1, "see"): [50.0, 20.0], (1, "hear"): [60.0, 5.0]}
    for (stage, modality), values in draws.items():
        scores.add(stage, modality, "n0", np.array(values))
    assert scores.transfer(1).tolist() == [60.0, 5.0]
    assert scores.forgetting_mean(1).tolist() == [30.0, -10.0]


def tables(constant=False):
    """Lower triangles of scores of up to four stages, one or two test sets a modality."""
    score = st.integers(0, 200).map(float)

    @st.composite
    def draw_table(draw):
        num_stages = draw(st.integers(2, 4))
        sizes = [draw(st.integers(1, 2)) for _ in range(num_stages)]
        first = [[draw(score) for _ in range(size)] for size in sizes]
        table = {}
        for stage in range(num_stages):
            for i in range(stage + 1):
                for n in range(sizes[i]):
                    table[stage, f"m{i}", f"n{n}"] = first[i][n] if constant else draw(score)
        return num_stages, table

    return draw_table()


def filled(num_stages, table, shift=0.0):
    scores = ScoreMatrix([f"m{i}" for i in range(num_stages)])
    for (stage, modality, dataset), score in table.items():
        scores.add(stage, modality, dataset, score + shift)
    return scores


@given(tables(constant=True))
def test_nothing_forgotten_where_nothing_changes(drawn):
    scores = filled(*drawn)
    for stage in range(1, drawn[0]):
        assert scores.forgetting_mean(stage) == 0.0
    assert scores.dataset_forgetting("m0", "n0") == 0.0


@given(tables(), st.integers(-100, 100))
def test_a_constant_moves_transfer_and_not_forgetting(drawn, shift):
    scores, shifted = filled(*drawn), filled(*drawn, shift=float(shift))
    for stage in range(1, drawn[0]):
        assert shifted.forgetting_mean(stage) == pytest.approx(scores.forgetting_mean(stage))
        assert shifted.transfer(stage) == pytest.approx(scores.transfer(stage) + shift)


@given(tables())
def test_forgetting_against_the_formula_written_plainly(drawn):
    num_stages, table = drawn
    scores = filled(num_stages, table)
    for m in range(1, num_stages):
        per_modality = []
        for i in range(m):
            names = {n for _, modality, n in table if modality == f"m{i}"}
            losses = [
                max(table[j, f"m{i}", n] for j in range(i, m)) - table[m, f"m{i}", n] for n in names
            ]
            per_modality.append(sum(losses) / len(losses))
            assert scores.forgetting(m, f"m{i}") == pytest.approx(per_modality[-1])
        assert scores.forgetting_mean(m) == pytest.approx(sum(per_modality) / m)


@given(tables())
def test_order_of_entry_does_not_matter(drawn):
    num_stages, table = drawn
    backwards = dict(reversed(table.items()))
    last = num_stages - 1
    scores, others = filled(num_stages, table), filled(num_stages, backwards)
    assert scores.forgetting_mean(last) == pytest.approx(others.forgetting_mean(last))
