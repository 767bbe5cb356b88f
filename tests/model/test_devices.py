"""What lies on the device of a model stays there; what comes from files does not."""

from typing import get_args

import pytest
import torch

from pathweave.evaluate.verify import record_proof, verify_path
from pathweave.model.generate import begin, generate, go_on
from pathweave.model.rank import log_likelihoods
from pathweave.model.soft_vocabulary import Scope
from tests.far_device import far_device
from tests.model.test_held import Said, Unchanged
from tests.tiny import chain, medium, tiny_model

PROMPTS = [
    ["Look here:", medium("range", units=2, tokens=3, seed=2), "and", medium("sight"), "Same?"],
    [medium("sound", seed=1), "What is it?"],
    ["Say hello."],
]
NAMES = "sight", "sound", "range"
SPECS = {
    "connector": chain(*NAMES),
    **{
        scope: chain(*NAMES, sites=("*", "llm/*/self_attn/*"), scope=scope)
        for scope in get_args(Scope)
    },
}


@pytest.fixture(params=SPECS)
def specs(request):
    return SPECS[request.param]


def test_the_far_device_refuses_tensors_of_the_cpu():
    with far_device() as far:
        moved = torch.ones(2).to(far)
        assert (moved * 2).sum().item() == 4
        assert (moved + moved.cpu().sum()).cpu().tolist() == [3, 3]
        with pytest.raises(RuntimeError, match="left behind"):
            moved + torch.ones(2)


def test_loss_and_gradients_are_those_of_the_cpu(specs):
    answers = ["no", "a dog", "hello"]

    def gradients(model):
        path = model.paths["range"].requires_grad_(True)
        loss, _ = model.train()(PROMPTS, answers)
        loss.backward()
        return [loss, *(p.grad for p in path.parameters() if p.grad is not None)]

    near = gradients(tiny_model(*specs))
    with far_device() as far:
        found = gradients(tiny_model(*specs).to(far))
        assert all(each.device == far for each in found)
        found = [each.cpu() for each in found]
    torch.testing.assert_close(found, near)


def test_answers_and_ranks_are_those_of_the_cpu(specs):
    model = tiny_model(*specs)
    said, scores = generate(model, PROMPTS, 4), log_likelihoods(model, PROMPTS, ["yes", "a dog"])
    with far_device() as far:
        model.to(far)
        assert generate(model, PROMPTS, 4) == said
        torch.testing.assert_close(log_likelihoods(model, PROMPTS, ["yes", "a dog"]).cpu(), scores)


def test_a_proof_from_a_file_holds_on_the_device_it_was_recorded_on(specs):
    with far_device() as far:
        model = tiny_model(*specs).to(far)
        tensors, about = record_proof(model, [[medium("sound", seed=1), "What is it?"]])
        from_file = {name: tensor.cpu() for name, tensor in tensors.items()}
        assert verify_path(model, "sound", from_file, about).identical


def test_rows_that_are_held_say_what_they_say_on_the_cpu(specs):
    def said(model):
        told = [[] for _ in PROMPTS]

        def turn(numbers):
            return Unchanged(), Said([told[i] for i in numbers])

        held = begin(model, PROMPTS[:2], [()] * 2, *turn([0, 1]))
        held.join(begin(model, PROMPTS[2:], [()], *turn([2])))
        held.keep([2, 0])
        go_on(model, held, [told[2][-1], told[0][-1]], 3, *turn([2, 0]))
        return told

    model = tiny_model(*specs)
    near = said(model)
    assert list(map(len, near)) == [4, 1, 4]
    with far_device() as far:
        assert said(model.to(far)) == near
