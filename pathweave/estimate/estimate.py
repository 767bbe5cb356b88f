"""The cost of every stage of a recipe, and of a path with more and more predecessors."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn

from pathweave.estimate.costs import (
    Estimate,
    Features,
    Growth,
    Memory,
    Operations,
    StageCost,
    Trained,
    Workload,
)
from pathweave.estimate.encoders import features_read
from pathweave.estimate.measure import Meter, Saved, shapes, size, weight_bytes
from pathweave.estimate.shapes import shape_model, words
from pathweave.methods import check_stages, method_of, stages_of
from pathweave.methods.lesson import Lesson, Samples, StageContext, WeightedSet
from pathweave.model.base import freeze
from pathweave.model.llm_hosts import PREFIX
from pathweave.model.paths import ModalPath
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium, Prompt
from pathweave.model.soft_vocabulary import Ride
from pathweave.nn.hooked import carrying
from pathweave.nn.projector import PROJECTOR_SITE
from pathweave.recipe.schema import Recipe

BITS = {"8bit": 8, "4bit": 4}
FLOAT32 = 4
MOMENTS = 2  # AdamW keeps the mean of gradients and of their squares


class _NoSamples(Samples):
    """A set that is empty: shapes do not depend on what is in it."""

    def __len__(self) -> int:
        return 0


def estimate_recipe(
    recipe: Recipe,
    modalities: int | None = None,
    batch_size: int | None = None,
    text: int = 16,
    answer: int = 16,
) -> Estimate:
    """Return what every stage of a recipe costs, from shapes alone.

    Every stage is learnt as its method says, with the real modules on tensors without numbers, and
    one step of training and one answer are measured.

    Args:
        recipe: The recipe.
        modalities: Number of paths up to which growth is shown; None is the number of stages.
        batch_size: Samples held at once; None is what the recipe says.
        text: Tokens of cue and question.
        answer: Tokens of the answer, trained on and generated.

    Raises:
        RecipeError: If the base or an encoder is unknown.
        FetchError: If a directory lacks its configuration.
        PathError: If a directory of a base is damaged.
    """
    model = shape_model(recipe)
    llm, connector = size(model.llm), size(model.qformer, model.projector)
    check_stages(model, recipe, [n for n in recipe.curriculum if n not in model.paths])
    ready = [path.spec.name for path in model.base.ready_paths]
    carried: dict[str, Tensor] = {}

    @cache
    def writes(prompt: int, answer: int) -> tuple[int, int, int]:
        return _write(model.llm, torch.zeros(1, prompt, dtype=torch.long, device="cpu"), answer)

    stages = []
    for names in stages_of(recipe, ready):
        stage = _learn(model, recipe, names, carried)
        training, features = recipe.training_of(names[0]), stage.features
        load = Workload(
            units=features.units,
            tokens=features.tokens,
            queries=stage.path.spec.num_queries,
            text=text,
            answer=answer,
            reads_text=model.base.text_tokenizer is not None,
        )
        batch = batch_size or training.micro_batch or training.batch_size
        sample = _Sample(model, stage.path, load, batch)
        stages.append(_cost(stage, sample, recipe, writes))
    return Estimate(
        recipe=recipe.name,
        base=recipe.base,
        llm_parameters=llm,
        connector_parameters=connector,
        stages=tuple(stages),
        growth=_growth(sample, recipe, modalities or len(recipe.curriculum)),
    )


@dataclass(frozen=True)
class _Stage:
    """A stage that has begun.

    Attributes:
        names: The modalities that the stage learns.
        path: The path among theirs that reads the largest media: these are measured.
        features: What the encoder makes of such a medium.
        lesson: What is trained first; None if the base was pretrained with the path.
        rest: The method, waiting for the end of that.
        copies: Bytes that the method holds beside the model and what it trains.
        kinds: Kind of each parameter of the connector and of all paths, by identity.
    """

    names: tuple[str, ...]
    path: ModalPath
    features: Features
    lesson: Lesson | None
    rest: Iterator[Lesson]
    copies: int
    kinds: dict[int, str]


def _learn(
    model: PathWeave, recipe: Recipe, names: tuple[str, ...], carried: dict[str, Tensor]
) -> _Stage:
    """Begin a stage as a run does, but with sets of no samples."""
    found = {name: features_read(recipe, name) for name in names}
    largest = max(found, key=lambda name: found[name].units * found[name].tokens)
    shared = [*model.qformer.parameters(), *model.projector.parameters()]
    kinds = dict.fromkeys(map(id, shared), "connector")
    lesson, rest, copies = None, cast(Any, iter(())), 0
    if names[0] not in model.paths or recipe.training_of(names[0]).connector:
        context = StageContext(
            model=model,
            recipe=recipe,
            names=names,
            earlier=recipe.curriculum[: recipe.curriculum.index(names[0])],
            width=lambda name: found[name].width,
            sets=lambda _: [WeightedSet(cast(Any, _NoSamples)())],
            method_state=carried,
        )
        rest = cast(Any, method_of(recipe, names[0]).lessons(context))
        with shapes():
            lesson = next(rest)
        # What a method has made so far are the variables of its function.
        learn = inspect.getgeneratorlocals(rest.gi_yieldfrom)
        copies = _bytes_beside(model, [carried, *learn.values()])
    kinds |= _kinds(model, names)
    path = model.paths[largest]
    return _Stage(names, path, found[largest], lesson, rest, copies, kinds)


def _cost(
    stage: _Stage,
    sample: "_Sample",
    recipe: Recipe,
    writes: Callable[[int, int], tuple[int, int, int]],
) -> StageCost:
    """Measure a stage and an answer, whose cost ``writes`` gives, and end the stage."""
    model, features, lesson = sample.model, stage.features, stage.lesson
    held = {
        "llm": weight_bytes(model.llm) - _saved_bytes(model, recipe.quantise),
        "encoder": features.weight_bytes,
        "connector": weight_bytes(model.qformer, model.projector, model.paths),
    }
    training = step = None
    counted: dict[int, tuple[str, int]] = {}
    if lesson is not None:
        activations, step = sample.train(lesson, features.flops)
        moments = size(lesson.trained) * FLOAT32 * MOMENTS
        if lesson.training.offload_optimizer:  # they come when the activations have gone
            moments = max(0, moments - activations)
        training = Memory(
            **held,
            gradients=size(lesson.trained) * FLOAT32,
            optimizer=moments,
            activations=activations,
            copies=stage.copies,
        )
        with shapes():
            for each in (lesson, *stage.rest):
                for p in each.trained.parameters():
                    counted[id(p)] = stage.kinds.get(id(p), "low_rank"), p.numel()
    freeze(model)
    load = sample.load
    in_llm = sample.path.experts_in_llm()
    writing = sample.writing() if in_llm else writes(load.prompt, load.answer)
    reading, decoding, keys_and_values = writing
    answer = Operations(features.flops, sample.connector_flops(), reading, decoding)
    trained = dict.fromkeys(vars(Trained()), 0)
    for kind, number in counted.values():
        trained[kind] += number
    own = [model.paths[name].count() for name in stage.names]
    return StageCost(
        modality=stage.names[0],
        others=len(stage.names) - 1,
        features=features,
        load=load,
        batch_size=sample.batch,
        trained=Trained(**trained),
        full_tuning=model.base.num_tunable
        + sum(
            each[kind] for each in own for kind in ("queries", "input", "patches") if kind in each
        ),
        feature_bytes=features.cached_bytes,
        training=training,
        inference=Memory(**held, keys_and_values=keys_and_values * sample.batch),
        step=step,
        answer=answer,
    )


@dataclass(frozen=True)
class _Sample:
    """A batch of equal samples of a path.

    Attributes:
        model: The model.
        path: The path that reads their media.
        load: What is in one of them.
        batch: How many there are.
    """

    model: PathWeave
    path: ModalPath
    load: Workload
    batch: int

    def train(self, lesson: Lesson, encoder: int) -> tuple[int, Operations]:
        """Return the bytes that a step keeps for its backward pass, and a sample's operations."""
        model, count = self.model, self.batch
        model.train()
        model.checkpointing = lesson.training.checkpointing
        prompts: list[Prompt] = [[medium, words(self.load.text)] for medium in self._media()]
        answers = [words(self.load.answer - 1)] * count
        # Operations when the connector has made its tokens, and when their gradients have come.
        marks: list[int] = []

        def mark(_: nn.Module, __: object, tokens: Tensor) -> None:
            marks.append(meter.flops)
            tokens.register_hook(lambda _: marks.append(meter.flops))
            hook.remove()

        own = dict(self.path.own.items())
        last = model.tail or own.get("projector", model.projector)
        hook = last.register_forward_hook(mark)
        with Meter() as meter:
            with Saved(model) as saved:
                loss, _ = model(prompts, answers)
                read = meter.flops
                penalty = None if lesson.penalty is None else lesson.penalty(prompts)
            forward = meter.flops
            loss.backward()
            if penalty is not None:
                penalty.backward()
        model.zero_grad(set_to_none=True)
        made, returned = marks
        llm = read - made + returned - forward
        step = Operations(encoder, (meter.flops - llm) // count, llm // count)
        return saved.num_bytes, step

    def connector_flops(self) -> int:
        """Return the operations of a sample's forward pass from features to soft tokens."""
        text = words(self.load.text)
        self.model.paths.mixtures(self.path.spec.name)  # those of frozen paths are kept
        with torch.no_grad(), Meter() as meter:
            self.model.soft_tokens(self._media(), [text] * self.batch)
        return meter.flops // self.batch

    def writing(self) -> tuple[int, int, int]:
        """Return what an answer takes in a language model that the path has experts in."""
        prompt: Prompt = [self._media()[0], words(self.load.text)]
        with torch.no_grad(), Meter():
            laid_out = self.model.lay_out([prompt])
        ids = torch.tensor([sum(laid_out.rows[0], ())], device="cpu")
        return _write(self.model.llm, ids, self.load.answer, laid_out.ride)

    def _media(self) -> list[Medium]:
        shape = self.load.units, self.load.tokens, self.path.spec.encoder_width
        return [Medium(self.path.spec.name, torch.empty(shape, device="meta"))] * self.batch


def _write(
    llm: Any,  # noqa: ANN401
    prompt: Int[Tensor, "1 prompt"],
    answer: int,
    ride: Ride | None = None,
) -> tuple[int, int, int]:
    """Return what an answer of so many tokens takes after a prompt.

    Returns:
        The operations of reading the prompt, those of writing, and the bytes of keys and values.
    """
    count, length = answer - 1, prompt.shape[1]
    passes: list[int] = []
    ids, cache = prompt, cast(Any, None)
    with torch.no_grad(), carrying(ride):
        for _ in range(3):
            if ride is not None:
                ride.known = ids
            with Meter() as meter:
                made = llm(input_ids=ids.to("meta"), logits_to_keep=1, cache=cache, use_cache=True)
            cache = made.cache
            passes.append(meter.flops)
            ids = prompt.new_zeros(1, 1)
    # The last token of an answer is written, and not read.
    held = sum(_cached_bytes(layer, length + 2, length + count) for layer in cache.layers)
    reading, first, second = passes
    # A token costs more than the one before, each by as much.
    return reading, count * first + count * (count - 1) // 2 * (second - first), held


def _cached_bytes(layer: Any, read: int, tokens: int) -> int:  # noqa: ANN401 (of transformers)
    """Return the bytes that a layer keeps of so many tokens, if it has read ``read`` of them."""
    # A recurrent layer has states in their place, a layer that shares those of another has neither.
    states = [getattr(layer, name, {}) for name in ("conv_states", "recurrent_states")]
    kept = sum(t.nbytes for each in states for t in each.values() if t is not None)
    most = (getattr(layer, "sliding_window", None) or tokens + 1) - 1
    for each in (getattr(layer, "keys", None), getattr(layer, "values", None)):
        if each is not None:
            kept += each.nbytes // min(most, read) * min(most, tokens)
    return kept


def _kinds(model: PathWeave, names: tuple[str, ...]) -> dict[int, str]:
    """Return what each parameter of a path is, by its identity."""
    kinds: dict[int, str] = {}
    for path in model.paths:
        parts: list[tuple[str, nn.Module]] = [
            ("input_norm", path.input_norm),
            ("input_projection", path.input_projection),
            ("positions", path.positions),
            ("connector", path.own),
        ]
        if path.patches is not None:
            parts.append(("patches", path.patches))
        for site, experts in path.experts.items():
            inside = "llm_adapters" if site.startswith(PREFIX) else "adapters"
            adapters = "projector_adapter" if site == PROJECTOR_SITE else inside
            for kind, part in experts.named_children():
                parts.append(({"adapter": adapters, "gate": "gates"}.get(kind, kind), part))
        found = {id(p): kind for kind, part in parts for p in part.parameters()}
        found[id(path.queries)] = "queries"
        own = path.spec.name in names
        kinds |= found if own else dict.fromkeys(found, "earlier")
    return kinds


def _bytes_beside(model: PathWeave, values: Iterable[object]) -> int:
    """Return the bytes of the tensors among values, or in them, that are not the model's."""
    tensors: list[Tensor] = []
    for value in values:
        if isinstance(value, nn.Module):
            tensors += [*value.parameters(), *value.buffers()]
        elif isinstance(value, Mapping):
            tensors += [each for each in value.values() if isinstance(each, Tensor)]
    known = {id(t) for t in (*model.parameters(), *model.buffers())}
    return sum(t.nbytes for t in {id(t): t for t in tensors if id(t) not in known}.values())


def _growth(sample: _Sample, recipe: Recipe, modalities: int) -> tuple[Growth, ...]:
    """Measure paths of the last stage's shape with more and more predecessors."""
    builds = recipe.method.name == "pathweave"
    bare = replace(sample.path.spec, name="bare", predecessors=(), rank=0, own=())
    rank = recipe.method.rank if builds else sample.path.spec.rank
    grown: list[Growth] = []
    with shapes():
        model = PathWeave(replace(sample.model.base, ready_paths=()))
        alone = replace(sample, model=model, path=model.paths.expand(bare))
    lowest = alone.connector_flops()
    for number in range(1, modalities + 1):
        earlier = tuple(model.paths.names[1:]) if builds else ()
        spec = replace(sample.path.spec, name=f"path_{number}", rank=rank, predecessors=earlier)
        with shapes():
            path = model.paths.expand(spec)
        counts = path.count()
        grown.append(
            Growth(
                modalities=number,
                in_adapters=counts["in_adapters"],
                gates=counts["gates"],
                path=size(path),
                all_paths=size(model.paths) - size(alone.path),
                connector_flops=replace(alone, path=path).connector_flops() / lowest,
            )
        )
    return tuple(grown)


def _saved_bytes(model: PathWeave, quantise: str | None) -> int:
    """Return the bytes that quantised linear layers do not take (their scales are left out)."""
    if quantise is None:
        return 0
    modules = cast(nn.Module, model.llm.base_model).modules()
    weights = [getattr(m, "weight", None) for m in modules if not isinstance(m, nn.Embedding)]
    matrices = [w for w in weights if isinstance(w, Tensor) and w.ndim == 2]
    return sum(w.nbytes - w.numel() * BITS[quantise] // 8 for w in matrices)
