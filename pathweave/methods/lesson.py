"""What a way of learning is told of a stage, and what it answers with."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Prompt
from pathweave.recipe.schema import Recipe, Training


@runtime_checkable
class Samples(Protocol):
    """Samples to learn from, as ``data.examples.Examples`` has them."""

    def __len__(self) -> int:
        """Return how many there are."""

    def prompt(self, index: int) -> Prompt:
        """Return the prompt of a sample with its media encoded."""

    def answer(self, index: int) -> str:
        """Return what is to be learnt as the answer."""

    def length(self, index: int) -> int:
        """Return a measure of the length of a sample."""


@dataclass(frozen=True)
class Source:
    """A set of samples to learn from, and how they are drawn.

    Attributes:
        samples: The set.
        weight: Share of the samples drawn, relative to other sources.
        balance: In [0, 1]: 0 draws answers as often as they occur, 1 all alike.
    """

    samples: Samples
    weight: float = 1.0
    balance: float = 0.0


@dataclass(frozen=True)
class Task:
    """What a method is told of a stage.

    Attributes:
        model: The model, with the paths of all earlier stages.
        recipe: The run.
        names: Modalities that the stage learns: one, but for a method that learns all at once.
        earlier: Modalities learnt before it, in order.
        width: Gives the width of a modality's features.
        sets: Gives what is learnt from of a modality.
        carried: Tensors that the method handed on at the end of the stage before, by name; what is
            there when this stage ends is handed on to the next.
    """

    model: PathWeave
    recipe: Recipe
    names: tuple[str, ...]
    earlier: tuple[str, ...]
    width: Callable[[str], int]
    sets: Callable[[str], Sequence[Source]]
    carried: dict[str, Tensor]

    @property
    def name(self) -> str:
        """The modality; the first if there are several."""
        return self.names[0]

    @property
    def training(self) -> Training:
        """Settings of the stage."""
        return self.recipe.training_of(self.name)


@dataclass(frozen=True)
class Lesson:
    """One course of training in a stage. All but the first two fields are as in plain training.

    Attributes:
        trained: What is trained; buffers in it are saved with the state of the running stage.
        sets: What is learnt from.
        training: Settings; None is those of the stage.
        penalty: Added to the loss: a mean over the prompts it is given, which are part of a batch.
        after_step: Called after each step with the number of steps done and the learning rate.
        name: Name of a lesson after the first.
    """

    trained: nn.ModuleDict
    sets: Sequence[Source]
    training: Training | None = None
    penalty: Callable[[Sequence[Prompt]], Tensor] | None = None
    after_step: Callable[[int, float], None] | None = None
    name: str = ""


@runtime_checkable
class Learn(Protocol):
    """The way of learning itself: a generator whose lessons are carried out as they come.

    What stands before the first ``yield`` is done when the stage begins, what stands after the
    last when its training has ended. A stage that was interrupted is begun anew, and its lessons
    go on from where they were; so nothing but the model as the last finished stage left it, the
    seed, ``Task.carried`` and what the lessons train may decide what is done.
    """

    def __call__(self, task: Task) -> Iterator[Lesson]:
        """Yield the lessons of a stage, one after the other."""


@dataclass(frozen=True)
class Method:
    """A way of learning, and what a run must know of it.

    Attributes:
        learn: Carries out a stage.
        trains: What a stage trains besides queries, input norm and projection of its path; empty
            for adapters.
        shares: Whether a stage changes the connector that all paths share.
        replays: Whether a stage needs the training data of earlier ones.
        at_once: Whether a single stage learns all modalities.
    """

    learn: Learn
    trains: tuple[str, ...] = ()
    shares: bool = False
    replays: bool = False
    at_once: bool = False
