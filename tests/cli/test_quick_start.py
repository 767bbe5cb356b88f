"""Each in a process of its own: what is imported once stays."""

import subprocess
import sys

import pytest

START = """
import sys
from pathweave.cli.quick_start import import_models_quickly
import_models_quickly()
"""
LEFT_OUT = ("torch._dynamo.eval_frame", "torch.distributed.tensor", "scipy", "sympy")


def said(program):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True
    )
    return done.stdout.split()


def test_models_answer_without_what_is_left_out():
    program = f"""{START}
import torch
from tests.tiny import chain, medium, tiny_model
from pathweave.model.generate import generate
model = tiny_model(*chain("sight", "sound"))
generate(model, [[medium("sound"), "What?"]], 2)
print(*[name in sys.modules for name in {LEFT_OUT}], torch.distributed.is_available())
"""
    assert said(program) == ["False"] * len(LEFT_OUT) + ["True"]


def test_what_is_left_out_is_there_when_it_is_used():
    program = f"""{START}
import torch
from transformers.loss.loss_for_object_detection import linear_sum_assignment
from transformers.masking_utils import TransformGetItemToIndex
print(*linear_sum_assignment([[2.0, 1.0], [1.0, 2.0]])[1])
print(type(TransformGetItemToIndex()).__name__)
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item())
"""
    assert said(program) == ["1", "0", "TransformGetItemToIndex", "2.0"]


@pytest.mark.slow
def test_a_transformers_that_wants_more_is_imported_as_ever():
    program = f"""{START.replace("import_models_quickly()", "")}
from pathweave.cli import quick_start
quick_start.MARKS = ()
quick_start.import_models_quickly()
import transformers.modeling_utils
print("torch._dynamo.eval_frame" in sys.modules)
"""
    assert said(program) == ["True"]


@pytest.mark.slow
@pytest.mark.parametrize("first", ["transformers", "torch._dynamo"])
def test_a_process_that_has_them_is_left_as_it_is(first):
    program = f"""
import {first}
{START}
import torch._dynamo
from transformers.utils import is_torch_distributed_available
print(hasattr(torch._dynamo, "eval_frame"), is_torch_distributed_available())
"""
    assert said(program) == ["True", "True"]


def test_help_imports_neither_models_nor_event_loops():
    program = """
import sys
from pathweave.cli import main
sys.argv = ["pathweave", "--help"]
try:
    main()
finally:
    names = ("torch", "numpy", "asyncio", "pydantic")
    print(*[name in sys.modules for name in names], file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stderr.split() == ["False"] * 4
