import os
import signal
from itertools import product
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st

from pathweave.data.cache import FeatureCache
from pathweave.data.examples import Examples
from pathweave.data.readers import Readers
from pathweave.display import Display
from pathweave.errors import RunError
from pathweave.methods.lesson import Lesson, WeightedSet
from pathweave.methods.pathweave import expand
from pathweave.recipe.reading import load_recipe
from pathweave.train.log import RunLog
from pathweave.train.processes import Processes
from pathweave.train.stage import mixed_seed, train_stage
from pathweave.train.stop import Interrupted
from tests.tiny import WIDTH, chain, tiny_model
from tests.whole_runs import events

FIELDS = {"time", "event", "stage", "step", "loss", "lr", "grad_norm", "padding"}
FIELDS |= {"samples_per_second"}


class StoppingLog(RunLog):
    """A log during which somebody presses Ctrl-C: after the given step."""

    def __init__(self, path: Path, after: int) -> None:
        super().__init__(path)
        self.after = after

    def event(self, name: str, **values) -> None:
        super().event(name, **values)
        if values["step"] == self.after:
            os.kill(os.getpid(), signal.SIGINT)


class Trainer:
    """Trains ``tilt`` as third path of a small model; the same call gives the same tensors."""

    def __init__(self, recipe_file: Path, home: Path, root: Path) -> None:
        self.file, self.cache, self.root = recipe_file, FeatureCache(home / "features"), root

    def __call__(self, run="run", log=None, num_processes=1, **overrides):
        dotted = {field.replace("__", "."): value for field, value in overrides.items()}
        recipe = load_recipe(self.file, dotted)
        examples = Examples(
            Path(recipe.modalities["tilt"].train["qa"].manifest),
            Readers(recipe.modalities, self.cache),
        )
        model = tiny_model(*chain("sight", "sound"))
        torch.manual_seed(0)
        modules = expand(model, recipe, "tilt", WIDTH)
        sets, training = [WeightedSet(examples)], recipe.training_of("tilt")
        lesson = Lesson("tilt", modules, sets, training, seed=3)
        checkpoint = self.root / run / "checkpoint"
        log = log or RunLog(self.root / run / "log.jsonl")
        processes = Processes(Accelerator(cpu=True))
        processes.count = num_processes
        train_stage(model, lesson, checkpoint, processes, log, Display(quiet=True))
        return modules.state_dict()

    def losses(self, run="run"):
        return [event["loss"] for event in events(self.root / run, "step")]


@pytest.fixture
def train(recipe_file, home, tmp_path):
    return Trainer(recipe_file, home, tmp_path)


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_the_loss_falls_and_every_step_is_logged(train):
    train(training__steps=16, training__lr=0.1)
    losses = train.losses()
    assert sum(losses[-4:]) < sum(losses[:4]) - 1
    steps = events(train.root / "run", "step")
    assert [event["step"] for event in steps] == list(range(1, 17))
    assert all(event.keys() == FIELDS for event in steps)


@pytest.mark.parametrize("max_update_rms", [None, 0.5])
@pytest.mark.parametrize("gate", ["softmax", "noisy_softmax"])
def test_stopping_and_resuming_changes_nothing(train, gate, max_update_rms):
    settings = {"method__gate": gate, "training__steps": 7, "training__save_every": 3}
    settings["training__max_update_rms"] = max_update_rms
    whole = train("whole", **settings)
    log = StoppingLog(train.root / "parts" / "log.jsonl", after=3)
    # The signal comes after step 3 was counted: step 4 is finished, then saved.
    with pytest.raises(Interrupted, match="stopped in stage 'tilt' after step 4"):
        train("parts", log, **settings)
    assert_same(train("parts", **settings), whole)
    assert train.losses("parts") == train.losses("whole")


@given(st.lists(st.integers(0, 2**61 - 2), min_size=1, max_size=4))
def test_a_mixed_seed_is_the_hash_of_a_tuple_in_todays_cpython(numbers):
    assert mixed_seed(*numbers) == hash(tuple(numbers))


def test_a_mixed_seed_depends_on_every_number_and_their_order():
    seeds = [mixed_seed(seed, step, process) for seed, step, process in product(range(6), repeat=3)]
    assert len(set(seeds)) == 6**3
    # Written down, so that no interpreter may change what a run draws.
    assert mixed_seed(3, 17, 2) == -3716692764570974859
    torch.manual_seed(min(seeds))


def test_noise_of_the_gates_is_drawn_anew_at_every_step(train):
    plain = train("plain", training__steps=2)
    noisy = train("noisy", training__steps=2, method__gate="noisy_softmax")
    assert not torch.equal(plain["path.queries"], noisy["path.queries"])


def test_limited_updates_train_something_else(train):
    settings = {"training__steps": 3, "training__lr": 0.1}
    whole = train("whole", **settings)
    assert_same(train("same", training__max_update_rms=1e6, **settings), whole)
    limited = train("limited", training__max_update_rms=0.1, **settings)
    assert not torch.equal(limited["path.queries"], whole["path.queries"])


def test_an_offloaded_optimiser_trains_the_same(train):
    settings = {"training__steps": 3, "training__max_update_rms": 0.5}
    whole = train("whole", **settings)
    assert_same(train("offloaded", training__offload_optimizer=True, **settings), whole)


def test_a_finished_stage_is_not_trained_further(train):
    whole = train(training__steps=3)
    assert_same(train(training__steps=3), whole)
    assert len(train.losses()) == 3


def test_a_batch_may_be_computed_in_parts(train):
    train("whole", training__batch_size=6)
    train("parts", training__batch_size=6, training__micro_batch=2)
    train("uneven", training__batch_size=6, training__micro_batch=4)
    assert train.losses("parts") == pytest.approx(train.losses("whole"), abs=1e-4)
    assert train.losses("uneven") == pytest.approx(train.losses("whole"), abs=1e-4)


def test_a_loss_that_is_not_finite_ends_the_run(train):
    with pytest.raises(
        RunError, match=r"must be finite, got nan at step \d of stage 'tilt'; lower"
    ):
        train(training__lr=1e30, training__steps=4)


def test_a_batch_smaller_than_the_number_of_processes_is_refused(train):
    with pytest.raises(RunError, match=r"batch_size must be at least .* 3, got 2; raise"):
        train(training__batch_size=2, num_processes=3)
