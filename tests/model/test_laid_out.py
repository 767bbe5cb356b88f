"""Prompts laid out: padding, what runs beside the tokens, and where rows that were read go on."""

import pytest
import torch

from pathweave.model.laid_out import LaidOut, Prefilled, pad, too_long
from pathweave.model.soft_vocabulary import Ride


def test_padding_goes_to_the_side_that_is_asked_for():
    rows = [torch.ones(1, 2), torch.full((3, 2), 2.0)]
    padded, mask = pad(rows, side="left")
    assert padded[:, :, 0].tolist() == [[0, 0, 1], [2, 2, 2]]
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]
    padded, mask = pad(rows, side="right")
    assert padded[:, :, 0].tolist() == [[1, 0, 0], [2, 2, 2]]
    assert mask.tolist() == [[1, 0, 0], [1, 1, 1]]


def test_a_prompt_fits_up_to_the_last_token_of_its_answer():
    assert too_long(100, 28, context=128) is None
    assert "got 100 and 29; shorten" in too_long(100, 29, context=128)
    assert too_long(10**9, 1, context=None) is None


CPU = torch.device("cpu")


def laid_out(alongside, inputs):
    ride = Ride(first=10, vectors=torch.zeros(0, 2), path_of=[])
    return LaidOut([((), (1,))] * len(alongside), ride, alongside, inputs)


@pytest.mark.parametrize("side", ["left", "right"])
def test_answers_are_marked_as_is_said_or_as_the_end_of_their_prompt(side):
    """Marks are padded with zeros, as ids are."""
    kinds, places = torch.tensor([0, 1]), torch.tensor([[3, 3], [4, 5]])
    rows = [{"kind": kinds, "place": places}, {"kind": kinds[1:], "place": places[1:]}]
    made = laid_out(rows, {"pixels": torch.ones(3)}).beside(side, CPU, {"kind": 7}, [1, 1])
    short = [0, 1, 7] if side == "left" else [1, 7, 0]
    assert made["kind"].tolist() == [[0, 1, 7], short]
    assert made["place"][0].tolist() == [[3, 3], [4, 5], [4, 5]]
    assert made["place"][1].tolist() == (
        [[0, 0], [4, 5], [4, 5]] if side == "left" else [[4, 5], [4, 5], [0, 0]]
    )
    assert made["pixels"].tolist() == [1, 1, 1]
    assert laid_out([{}, {}], {}).beside(side, CPU, {"kind": 7}, [1, 1]) == {}


def test_padding_takes_no_position():
    read = torch.tensor([[0, 1, 1], [1, 1, 1]])
    new = torch.tensor([[1, 1], [0, 1]])
    prefilled = Prefilled(None, read, [], laid_out([{}, {}], {}), by_itself=False)
    inputs = prefilled.decoder_inputs(new)
    assert inputs["position_ids"].tolist() == [[2, 3], [2, 3]]
    assert inputs["attention_mask"].tolist() == [[0, 1, 1, 1, 1], [1, 1, 1, 0, 1]]
    assert inputs["use_cache"] is False
    by_itself = Prefilled(None, read, [], laid_out([{}, {}], {}), by_itself=True)
    assert "position_ids" not in by_itself.decoder_inputs(new)
