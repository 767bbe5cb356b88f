"""A world of three sensors in memory: what a method makes of it, without files and commands."""

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from pathweave.display import Display
from pathweave.methods import METHODS, method_of
from pathweave.methods.lesson import StageContext, WeightedSet
from pathweave.model.base import freeze
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium
from pathweave.recipe.reading import parse_recipe
from pathweave.recipe.schema import Recipe
from pathweave.train.log import RunLog
from pathweave.train.processes import Processes
from pathweave.train.stage import train_stage
from tests.tiny import WIDTH, tiny_base

SENSORS = ("sight", "sound", "tilt")
ANSWERS = {"sight": ("low", "high"), "sound": ("soft", "loud"), "tilt": ("left", "right")}


@dataclass
class Sensor:
    """Readings of two classes, of opposite sign."""

    name: str
    count: int = 6

    def __len__(self) -> int:
        return self.count

    def prompt(self, index: int):
        generator = torch.Generator().manual_seed(index + 100 * SENSORS.index(self.name))
        sign = 1.0 if index % 2 else -1.0
        pattern = torch.tensor([sign, -sign]).repeat(WIDTH // 2)
        noise = 0.3 * torch.randn(1, 3, WIDTH, generator=generator)
        return [Medium(self.name, noise + pattern), "How is it?"]

    def answer(self, index: int) -> str:
        return ANSWERS[self.name][index % 2]

    def length(self, index: int) -> int:
        return 1


def recipe(method: str, *curriculum: str, base: bool = True, **options) -> Recipe:
    """A recipe whose first stage makes the base; options are those of the method's section."""
    modality = {
        "decoder": {"kind": "array"},
        "encoder": {"kind": "precomputed"},
        "train": {"qa": {"manifest": "none"}},
    }
    declared = {name: dict(modality) for name in curriculum}
    if base:
        declared[curriculum[0]]["training"] = {"connector": True}
    section = {method: options} if options else {}
    training = {"steps": 3, "batch_size": 4, "lr": 2e-2, "warmup": 0, "weight_decay": 0.0}
    return parse_recipe(
        {
            "name": "world",
            "modalities": declared,
            "curriculum": curriculum,
            "method": {"name": method, "queries": 2, "rank": 2, **section},
            "training": training,
        }
    )


class World:
    """A run in memory.

    Args:
        recipe: The run.
        root: Where states of running stages are kept.
    """

    def __init__(self, recipe: Recipe, root: Path) -> None:
        self.recipe = recipe
        self.root = root
        self.balance = 0.0
        self.method_state: dict = {}
        self.model = PathWeave(tiny_base())

    def context(self, *names: str) -> StageContext:
        first = self.recipe.curriculum.index(names[0])
        return StageContext(
            model=self.model,
            recipe=self.recipe,
            names=names,
            earlier=self.recipe.curriculum[:first],
            width=lambda _: WIDTH,
            sets=lambda name: [WeightedSet(Sensor(name), 2.0, self.balance)],
            method_state=self.method_state,
        )

    def learn(self, *names: str) -> "World":
        """Carry out a stage as a run does."""
        context = self.context(*names)
        torch.manual_seed(context.seed)
        for lesson in method_of(self.recipe, names[0]).lessons(context):
            checkpoint = self.root / f"checkpoint{lesson.part}"
            log, display = RunLog(None), Display(quiet=True)
            train_stage(
                self.model, lesson, checkpoint, Processes(Accelerator(cpu=True)), log, display
            )
        freeze(self.model)
        return self

    def learn_all(self) -> "World":
        names = self.recipe.curriculum
        if METHODS[self.recipe.method.name].at_once:
            return self.learn(names[0]).learn(*names[1:])
        for name in names:
            self.learn(name)
        return self

    def state(self) -> dict[str, torch.Tensor]:
        """Return copies of every tensor of the connector and the paths."""
        paths = self.model.paths
        tensors = {f"{p.spec.name}.{n}": t for p in paths for n, t in p.state_dict().items()}
        return {n: t.clone() for n, t in {**self.connector(), **tensors}.items()}

    def connector(self) -> dict[str, torch.Tensor]:
        return {n: t.clone() for n, t in self.model.base.connector_state().items()}

    @torch.no_grad()
    def loss(self, name: str) -> float:
        """Return the loss per sample of a modality, in nats."""
        sensor = Sensor(name)
        prompts = [sensor.prompt(i) for i in range(len(sensor))]
        answers = [sensor.answer(i) for i in range(len(sensor))]
        return self.model.eval()(prompts, answers)[0].item() / len(sensor)

    @torch.no_grad()
    def tokens(self, name: str) -> torch.Tensor:
        """Return what the connector makes of a modality's media."""
        sensor = Sensor(name)
        media = [sensor.prompt(i)[0] for i in range(len(sensor))]
        return torch.stack(self.model.eval().soft_tokens(media, ["How is it?"] * len(sensor)))


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)
