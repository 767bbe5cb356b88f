"""Lessons of a stage, the context that its method is given, and methods themselves."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pydantic import ValidationError
from torch import Tensor, nn

from pathweave.errors import PathWeaveError, RecipeError
from pathweave.methods.settings import MethodSettings, RunSettings, Settings, Training
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Prompt
from pathweave.parts import is_own, told
from pathweave.validation import explain


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
class WeightedSet:
    """A set of samples to learn from, and how they are drawn.

    Attributes:
        samples: The set.
        weight: Share of the samples drawn, relative to other sets.
        balance: In [0, 1]: 0 draws answers as often as they occur, 1 all alike.
    """

    samples: Samples
    weight: float = 1.0
    balance: float = 0.0


@dataclass(frozen=True)
class Lesson:
    """One course of training in a stage.

    Attributes:
        stage: Modality of the stage.
        trained: What is trained, and nothing else; buffers in it are saved with the state of the
            running stage.
        sets: What is learnt from.
        training: Settings.
        seed: Seed of the order of samples and of noise.
        part: Name of a lesson after the first.
        penalty: Added to the loss: a mean over the prompts it is given, which are part of a batch.
        after_step: Called after each step with the number of steps done and the learning rate.
    """

    stage: str
    trained: nn.ModuleDict
    sets: Sequence[WeightedSet]
    training: Training
    seed: int
    part: str = ""
    penalty: Callable[[Sequence[Prompt]], Tensor] | None = None
    after_step: Callable[[int, float], None] | None = None

    @property
    def name(self) -> str:
        """Name in logs and messages."""
        return f"{self.stage}/{self.part}" if self.part else self.stage


Lessons = Iterator[Lesson]
"""The lessons of a stage, carried out as they come."""


@dataclass(frozen=True)
class StageContext:
    """What a method is told of a stage.

    Attributes:
        model: The model, with the paths of all earlier stages.
        recipe: The run.
        names: Modalities that the stage learns: one, but for a method that learns all at once.
        earlier: Modalities learnt before it, in order.
        width: Gives the width of a modality's features.
        sets: Gives what is learnt from of a modality.
        method_state: Tensors that the method handed on at the end of the stage before, by name;
            what is there when this stage ends is handed on to the next.
    """

    model: PathWeave
    recipe: RunSettings
    names: tuple[str, ...]
    earlier: tuple[str, ...]
    width: Callable[[str], int]
    sets: Callable[[str], Sequence[WeightedSet]]
    method_state: dict[str, Tensor]

    @property
    def name(self) -> str:
        """The modality; the first if there are several."""
        return self.names[0]

    @property
    def training(self) -> Training:
        """Settings of the stage."""
        return self.recipe.training_of(self.name)

    @property
    def seed(self) -> int:
        """Seed of the stage."""
        return self.recipe.seed + self.recipe.curriculum.index(self.name)

    def lesson(
        self,
        trained: nn.ModuleDict,
        sets: Sequence[WeightedSet] | None = None,
        training: Training | None = None,
        **others: Any,  # noqa: ANN401 (further fields of a lesson)
    ) -> Lesson:
        """Return a lesson of the stage; see ``Lesson``.

        Args:
            trained: What is trained.
            sets: What is learnt from; None is the data of the modality.
            training: Settings; None is those of the stage.
            **others: Further fields of the lesson.
        """
        sets = self.sets(self.name) if sets is None else sets
        return Lesson(self.name, trained, sets, training or self.training, self.seed, **others)


@dataclass(frozen=True)
class Method:
    """A way of learning, and what a run must know of it.

    ``learn`` is a generator whose lessons are carried out as they come: what stands before the
    first ``yield`` is done when the stage begins, what stands after the last when its training has
    ended. A stage that was interrupted is begun anew, and its lessons go on from where they were;
    so nothing but the model as the last finished stage left it, the seed,
    ``StageContext.method_state`` and what the lessons train may decide what is done.

    Attributes:
        learn: Carries out a stage, given its context, and the options if the method has some.
        options: Class of the options, the section of a recipe that bears the method's name.
        trains: What a stage trains besides queries, input norm and projection of its path; empty
            for adapters.
        shares: Whether a stage changes the connector that all paths share.
        replays: Whether a stage needs the training data of earlier ones.
        at_once: Whether a single stage learns all modalities.
    """

    learn: Callable[..., Lessons]
    options: type[Settings] | None = None
    trains: tuple[str, ...] = ()
    shares: bool = False
    replays: bool = False
    at_once: bool = False

    def lessons(self, context: StageContext) -> Lessons:
        """Return the lessons of a stage, to be carried out as they come.

        Raises:
            RecipeError: If the recipe has wrong options for it.
        """
        options, method = self.options_in(context.recipe.method), context.recipe.method
        try:
            yield from self.learn(context) if options is None else self.learn(context, options)
        except PathWeaveError:
            raise
        except Exception as error:
            if not is_own(method.name):
                raise
            raise RecipeError(
                f"method {method.name!r} must learn stage {context.name!r}, got {told(error)}; "
                "mend it; finished stages are kept"
            ) from error

    def options_in(self, method: MethodSettings) -> Settings | None:
        """Return the options that a recipe has for it; None if it takes none.

        Raises:
            RecipeError: If they are wrong.
        """
        if self.options is None:
            return None
        try:
            return self.options.model_validate(method.options)
        except ValidationError as error:
            reason = explain(error, self.options, "method.own.")
            raise RecipeError(f"{reason}; correct it in the recipe") from error
