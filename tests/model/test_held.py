"""Rows that leave and come say what they would have said alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessor, StoppingCriteria

from pathweave.model.generate import begin, go_on, search
from tests.tiny import FAMILIES, chain, medium, tiny_model

WORDS = 12
ASKED = [
    ["Say hello."],
    ["Look:", medium("sound", seed=1), "What is it?"],
    ["Look here:", medium("range", units=2, tokens=3, seed=2), "and", medium("sight"), "Same?"],
    [medium("sound", seed=4), "or", medium("range", seed=3), "?"],
]


class Said(StoppingCriteria):
    """Writes down what each row has said; ends none."""

    def __init__(self, rows):
        self.rows = rows

    def __call__(self, ids, scores, **_):
        for row, token in zip(self.rows, ids[:, -1].tolist(), strict=True):
            row.append(token)
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)


class Unchanged(LogitsProcessor):
    def __call__(self, ids, logits):
        return logits


@pytest.fixture(
    scope="module",
    params=["llama", "granite", "onward", "medium", "prompt"],
)
def spoken(request):
    """A model of a family, or with hosts inside, and what it says to each prompt alone."""
    family, inside = FAMILIES.get(request.param, {}), {}
    if not family:
        inside = {"sites": ("llm/*",), "scope": request.param}
    model = tiny_model(*chain("sight", "sound", "range", **inside), **family)
    model.llm.generation_config.eos_token_id = None
    return model, [search(model, [prompt], WORDS)[0].tolist() for prompt in ASKED]


def test_prompts_are_answered_otherwise(spoken):
    _, alone = spoken
    assert len(set(map(tuple, alone))) == len(ASKED)


@given(
    come=st.permutations(range(len(ASKED))),
    first=st.integers(1, len(ASKED) - 1),
    steps=st.lists(st.integers(1, 3), min_size=3, max_size=3),
    order=st.randoms(use_true_random=False),
    is_again=st.booleans(),
)
@settings(max_examples=8, deadline=None)
def test_rows_come_leave_and_change_places(spoken, come, first, steps, order, is_again):
    model, alone = spoken
    said = {number: [] for number in come}

    def read(numbers):
        prompts, begun = [ASKED[i] for i in numbers], [tuple(said[i]) for i in numbers]
        return begin(model, prompts, begun, Unchanged(), Said([said[i] for i in numbers]))

    def say(held, numbers, count):
        rows = [said[i] for i in numbers]
        go_on(model, held, [row[-1] for row in rows], count, Unchanged(), Said(rows))

    seated = list(come[:first])
    held = read(seated)
    say(held, seated, steps[0])
    held.join(read(come[first:]))
    seated += come[first:]
    say(held, seated, steps[1])
    stay = order.sample(range(len(seated)), order.randint(1, len(seated)))
    held.keep(stay)
    gone, seated = set(come) - {seated[i] for i in stay}, [seated[i] for i in stay]
    say(held, seated, steps[2])
    if gone and is_again:  # those that left come back, with what they have said
        held.join(read(sorted(gone)))
        seated += sorted(gone)
        say(held, seated, 1)
    for number, row in said.items():
        assert row == alone[number][: len(row)]
    read_of_row = held.mask.sum(1).tolist()
    assert read_of_row == [model.length(ASKED[i]) + len(said[i]) - 1 for i in seated]
    assert held.mask.shape[1] == held.cache.get_seq_length()


def test_no_room_is_kept_for_rows_that_have_left(spoken):
    model, _ = spoken
    held = begin(model, ASKED, [()] * len(ASKED), Unchanged(), Said([[] for _ in ASKED]))
    assert held.mask.shape[1] > model.length(ASKED[0])
    held.keep([0])
    assert held.mask.tolist() == [[1] * model.length(ASKED[0])]
    assert held.cache.layers[0].keys.shape[2] == model.length(ASKED[0])
