"""The recipe: one typed schema for YAML, command line and JSON.

Every field says its meaning and unit. ``load_recipe`` names the nearest valid field when one is
misspelt. Objects of this module stop at the builders: ``nn`` takes numbers and modules.
"""

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from pathweave.encoders import KINDS, SERIES
from pathweave.errors import RecipeError
from pathweave.methods import METHODS
from pathweave.methods.settings import MethodSettings, Positive, Settings, Training
from pathweave.metrics import METRICS
from pathweave.model.paths import NAME
from pathweave.nn.kernels import KernelSpec
from pathweave.nn.patches import PatchSpec
from pathweave.nn.positions import PositionKind
from pathweave.parts import is_own
from pathweave.validation import explain, unknown

_TIME = re.compile(r"[0-9]+(\.[0-9]+)? ?s")
UNCUT_REACH = 512  # samples
SLOT = "{}"  # where a prompt template takes the sample's own text


def _as_list(value: object) -> object:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


def _one_slot(template: str) -> str:
    if template.count(SLOT) > 1:
        raise ValueError(f"a prompt must have {SLOT} at most once, got {template!r}")
    return template


Templates = Annotated[
    tuple[Annotated[str, AfterValidator(_one_slot)], ...], BeforeValidator(_as_list)
]
RESERVED_NAMES = {
    "base",
    "beams",
    "blind",
    "companion",
    "help",
    "json",
    "max_tokens",
    "path",
    "text",
    "trust_code",
}


class Component(Settings):
    """A decoder or an encoder: its kind and the options of that kind."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str = Field(
        description="Name of the part, or package.module:Class of your own; the other fields are "
        "its options."
    )

    @property
    def options(self) -> dict[str, Any]:
        """The fields besides ``kind``."""
        return dict(self.__pydantic_extra__ or {})


class DataSet(Settings):
    """One manifest and how its questions are put."""

    manifest: str = Field(description="Path of the manifest, relative to the recipe.")
    prompt: Templates = Field(
        (),
        description="Words instead of a sample's text, which takes the place of {}; of a list, one "
        "is drawn for each sample. Null leaves the text as it is.",
    )
    path: str | None = Field(
        None,
        description="Path that reads all its media, which is that of its modality; null reads each "
        "medium with the path of its type, or with the former where the modality reads others.",
    )


class TrainSet(DataSet):
    """One manifest to learn from."""

    weight: float = Field(1.0, gt=0, description="Share of the samples drawn, relative to others.")
    balance: float = Field(
        0.0, ge=0, le=1, description="0 draws answers as often as they occur, 1 all alike."
    )
    limit: Positive | None = Field(
        None, description="Samples used of it, evenly spaced; null is as many as of any manifest."
    )
    draw: Positive | None = Field(
        None,
        description="Samples drawn of these by the recipe's seed, each answer in its share; more "
        "are the same ones and others. Null is all.",
    )


class TestSet(DataSet):
    """One manifest to be scored on."""

    __test__ = False  # not a test class, whatever pytest makes of the name

    metric: Annotated[str, AfterValidator(METRICS.check)] = Field(
        description="One of docs/metrics.md: exact_match of answers, cider_d of captions, ranking "
        "of choices by likelihood, ...; or package.module:name of your own"
    )
    max_tokens: Positive = Field(12, description="Longest generated answer, in tokens.")
    min_tokens: int = Field(0, ge=0, description="Shortest generated answer, in tokens.")
    beams: Positive = Field(1, description="Beams of the search; 1 is greedy.")
    length_penalty: float = Field(
        1.0, description="Power of the length that divides a beam's score; above 0 favours long."
    )
    repetition_penalty: float = Field(
        1.0, gt=0, description="Tokens already in the answer get logits weaker by this; 1 is none."
    )
    probe: float | None = Field(
        None, description="Score of a linear probe on the same features, to show beside."
    )


def _samples(value: object) -> object:
    if isinstance(value, str) and not _TIME.fullmatch(value):
        raise ValueError(f"a length must be samples, as 16, or seconds, as '0.5 s', got {value!r}")
    return value


Length = Annotated[Positive | str, BeforeValidator(_samples)]


class Patches(Settings):
    """The patch encoder of a path: recordings in, a token a patch out, trained with the path."""

    length: Length = Field(16, description="Length of a patch: samples, or seconds as `0.5 s`.")
    stride: Length | None = Field(
        None, description="From patch to patch, in the same units; null is half the length."
    )
    width: int = Field(128, ge=8, multiple_of=4, description="Width of a token.")
    layers: int = Field(3, ge=0, description="Layers over the patches.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Probability in every layer.")

    def spec(self, rate: float) -> PatchSpec:
        """Return the patch encoder for recordings of a rate, in Hz."""
        length = _in_samples(self.length, rate)
        stride = max(1, length // 2) if self.stride is None else _in_samples(self.stride, rate)
        return PatchSpec(length, stride, self.width, self.layers, self.dropout)


class Kernels(Settings):
    """The kernel encoder of a path: fixed convolutions make one token of each window."""

    reach: Length | None = Field(
        None,
        description="Most samples that a kernel spans, or seconds as `3 s`; null is the length of "
        "a window, or 512 samples where recordings are not cut.",
    )
    biases: Positive = Field(4, description="Features of each kernel.")
    width: int = Field(256, ge=8, description="Width of a token.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Probability of leaving a feature out.")

    def spec(self, rate: float, seconds: float | None) -> KernelSpec:
        """Return the kernel encoder for recordings of a rate, in Hz, and windows of a length."""
        reach = self.reach or (f"{seconds} s" if seconds else UNCUT_REACH)
        return KernelSpec(_in_samples(reach, rate), self.biases, self.width, self.dropout)


def _in_samples(length: int | str, rate: float) -> int:
    if isinstance(length, int):
        return length
    return max(1, round(float(length.rstrip("s ")) * rate))


class Modality(Settings):
    """A modality: how its media are decoded and encoded, what it learns from, how it is scored.

    One that reads others has no media of its own, only a path: for samples that show several.
    """

    decoder: Component | None = Field(None, description="How bytes become a medium.")
    encoder: Component | None = Field(
        None,
        description="The frozen feature extractor; a file or directory that it is read from is "
        "relative to the recipe.",
    )
    cue: str = Field("", description="Words put before the tokens of such a medium.")
    reads: tuple[str, ...] = Field(
        (),
        description="Modalities whose media its path reads, with their decoders, encoders of one "
        "width, and cues; in place of its own.",
    )
    positions: PositionKind | None = Field(
        None,
        description="How the tokens of a medium are told their order: `sinusoidal`, `learned`, or "
        "`none` for a set. Null is what fits the encoder: `sinusoidal` for `precomputed`, `none` "
        "for encoders that put places into their features.",
    )
    columns: Positive | None = Field(
        None,
        description="Tokens a row, where the tokens of a medium lie row by row on a grid; null is "
        "a sequence.",
    )
    patches: Patches | None = Field(
        None, description="Patch encoder of its path, for the encoder `series`; null is the usual."
    )
    kernels: Kernels | None = Field(
        None,
        description="Kernel encoder of its path in place of the patch encoder: better where "
        "recordings are few.",
    )
    train: dict[str, TrainSet] = Field({}, description="What is learnt from, by data set.")
    test: dict[str, TestSet] = Field({}, description="What is scored, by data set.")
    training: dict[str, Any] = Field({}, description="Fields of `training` that differ here.")
    predecessors: tuple[str, ...] | None = Field(
        None, description="Earlier paths to build on; None is all that have adapters."
    )

    @model_validator(mode="after")
    def _reads_itself_or_others(self) -> "Modality":
        fields = ("decoder", "encoder", "cue")
        given = [field for field in fields if getattr(self, field)]
        if self.reads and given:
            raise ValueError(
                "a modality that reads others must have no decoder, encoder or cue of its own, "
                f"got {given[0]!r}; leave it out"
            )
        if not self.reads and (missing := [f for f in fields[:2] if f not in given]):
            raise ValueError(
                f"a modality must have a decoder and an encoder, got no {missing[0]}; add it, or "
                "name in reads the modalities whose media it reads"
            )
        return self

    @model_validator(mode="after")
    def _patches_of_series(self) -> "Modality":
        kind = self.encoder.kind if self.encoder else None
        given = [name for name in ("patches", "kernels") if getattr(self, name) is not None]
        if kind != SERIES and given:
            raise ValueError(
                f"{given[0]} must go with the encoder {SERIES!r}, got {kind!r}; leave them out"
            )
        if len(given) > 1:
            raise ValueError("a path must have patches or kernels, got both; leave out one of them")
        if self.columns is not None and self.positions == "none":
            raise ValueError("columns must go with positions, got none; leave out one of them")
        return self

    @property
    def order(self) -> PositionKind:
        """How tokens of its own media are told their order."""
        kind = self.encoder.kind if self.encoder else ""
        is_known = kind in KINDS or is_own(kind)
        fitting: PositionKind = getattr(KINDS[kind], "positions", "none") if is_known else "none"
        return self.positions or fitting

    @property
    def parts(self) -> tuple[Component, Component]:
        """Decoder and encoder of its media.

        Raises:
            RecipeError: If it has no media of its own.
        """
        if self.decoder is None or self.encoder is None:
            raise RecipeError(
                f"a medium must be of a modality with a decoder, got one that reads {self.reads}; "
                "name the modality of the medium"
            )
        return self.decoder, self.encoder


Section = TypeVar("Section", bound=MethodSettings)


def _with_options(section: type[Section]) -> type[Section]:
    """Return the section with the names of the methods, and a field for the options of each."""
    name = section.model_fields["name"]
    fields: dict[str, Any] = {"name": (Annotated[str, AfterValidator(METHODS.check)], name)}
    for method, about in METHODS.items():
        if about.options is not None:
            options = Field(None, description=f"Options of `{method}`.")
            fields[method] = (about.options | None, options)
    return create_model(
        section.__name__, __base__=section, __module__=__name__, __doc__=section.__doc__, **fields
    )


@_with_options
class MethodSection(MethodSettings):
    """How a stage after the first learns its modality.

    Fields from ``rank`` to ``in_adapter`` are for methods with adapters; ``rank`` and ``sites``
    also for ``lora``. A method with options of its own takes them from the section of its name.
    """

    @model_validator(mode="before")
    @classmethod
    def _own_options(cls, tree: Any) -> Any:  # noqa: ANN401 (what a file holds)
        """Fill in the options of the method, and refuse those of others."""
        if not isinstance(tree, dict) or not isinstance(name := tree.get("name", "pathweave"), str):
            return tree
        for method in METHODS:
            if method in cls.model_fields and tree.get(method) is not None and method != name:
                raise ValueError(
                    f"{method} must go with name: {method}, got name: {name}; leave it out"
                )
        if tree.get("own") and not is_own(name):
            raise ValueError(
                f"own must go with a method of your own, package.module:name, got name: {name}; "
                "leave it out"
            )
        if name in METHODS and name in cls.model_fields and tree.get(name) is None:
            return {**tree, name: {}}
        return tree


class Evaluation(Settings):
    """How the score matrix is made."""

    batch_size: Positive = Field(64, description="Samples generated for at once.")
    subset: Positive | None = Field(
        None,
        description="Samples per test set scored after every stage, always the same; null is all.",
    )
    whole_at_end: bool = Field(True, description="Score whole test sets too, after the last stage.")


class Recipe(Settings):
    """A whole run: a base, modalities, the order in which they are learnt, and how."""

    name: str = Field(description="Name of the run, for titles.")
    base: str = Field(
        "mini",
        description="`mini`, a directory that holds a base, an InstructBLIP or a BLIP-2, or the id "
        "of one on the Hugging Face hub.",
    )
    llm: str | None = Field(
        None,
        description="Causal language model in place of the base's own: a directory, `gemma-3-270m` "
        "and other weights of `pathweave fetch --list`, or a hub id.",
    )
    quantise: Literal["8bit", "4bit"] | None = Field(
        None, description="Hold the language model's weights in so many bits (extra `quant`)."
    )
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    modalities: dict[str, Modality] = Field(description="Modalities by name; any names.")
    curriculum: tuple[str, ...] = Field(min_length=1, description="Order of the stages.")
    method: MethodSection = Field(MethodSection(), description="How stages after the first learn.")
    training: Training = Field(Training(), description="How every stage is trained.")
    evaluation: Evaluation = Field(Evaluation(), description="How it is scored.")
    bad_samples: float = Field(
        0.01, ge=0, le=1, description="Share of undecodable samples above which a run stops."
    )
    limit: Positive | None = Field(
        None, description="Samples used of each manifest, evenly spaced; null is all."
    )
    quick: dict[str, Any] = Field({}, description="Overrides of `--quick`, by dotted field.")

    @field_validator("modalities")
    @classmethod
    def _own_path(cls, modalities: dict[str, Modality]) -> dict[str, Modality]:
        """Fill in the path of every set of a modality that reads others, and check those given."""
        return {name: _with_paths(name, modality) for name, modality in modalities.items()}

    @model_validator(mode="after")
    def _well_named(self) -> "Recipe":
        with_media = [name for name, modality in self.modalities.items() if not modality.reads]
        for name, modality in self.modalities.items():
            if not NAME.fullmatch(name) or name in RESERVED_NAMES:
                raise ValueError(
                    "a modality's name must be lower-case letters, digits and underscores and "
                    f"none of {sorted(RESERVED_NAMES)}, got {name!r}"
                )
            for other in modality.reads:
                if other not in with_media:
                    raise ValueError(unknown(f"modalities.{name}.reads", other, with_media))
        return self

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        for position, name in enumerate(self.curriculum):
            if name not in self.modalities:
                raise ValueError(unknown("a stage of curriculum", name, list(self.modalities)))
            if name in self.curriculum[:position]:
                raise ValueError(f"a modality must have one stage, got {name!r} twice")
            try:
                self.training_of(name)
            except ValidationError as error:
                raise ValueError(
                    explain(error, Training, f"modalities.{name}.training.")
                ) from error
            for earlier in self.modalities[name].predecessors or ():
                if earlier not in self.curriculum[:position]:
                    raise ValueError(
                        f"a predecessor of {name!r} must be an earlier stage, got {earlier!r}"
                    )
        return self

    def cut(self, num_stages: int) -> "Recipe":
        """Return the recipe of the first stages alone, with the modalities they need."""
        curriculum = self.curriculum[:num_stages]
        needed = {each for name in curriculum for each in (name, *self.read_by(name))}
        modalities = {name: of for name, of in self.modalities.items() if name in needed}
        return self.model_copy(update={"curriculum": curriculum, "modalities": modalities})

    def training_of(self, name: str) -> Training:
        """Return the training settings of one stage."""
        merged = {**self.training.model_dump(), **self.modalities[name].training}
        return Training.model_validate(merged)

    def predecessors_of(self, name: str) -> tuple[str, ...] | None:
        """Return the earlier paths that one builds on; None is all that have adapters."""
        return self.modalities[name].predecessors

    def input_of(self, name: str) -> dict[str, Any]:
        """Return the fields of ``PathSpec`` that say how the features of a stage are read."""
        modality = self.modalities[name]
        orders = [self.modalities[other].order for other in self.read_by(name)]
        known = modality.positions or next((each for each in orders if each != "none"), "none")
        patches = {self._patches_of(other) for other in self.read_by(name)}
        if len(patches) > 1:
            raise RecipeError(
                f"modalities.{name}.reads must name modalities with equal patches, or none, got "
                f"{', '.join(map(str, patches))}; leave some out"
            )
        return {"positions": known, "columns": modality.columns, "patches": patches.pop()}

    def _patches_of(self, name: str) -> PatchSpec | KernelSpec | None:
        modality = self.modalities[name]
        decoder, encoder = modality.parts
        if encoder.kind != SERIES:
            return None
        rate = float(decoder.options.get("rate", 1.0))
        if modality.kernels is not None:
            return modality.kernels.spec(rate, decoder.options.get("seconds"))
        return (modality.patches or Patches()).spec(rate)

    def read_by(self, name: str) -> tuple[str, ...]:
        """Return the modalities whose media the path of a stage reads: itself, or others."""
        return self.modalities[name].reads or (name,)

    @property
    def media(self) -> tuple[str, ...]:
        """Modalities whose media the stages read, in order, each once."""
        return tuple(dict.fromkeys(each for name in self.curriculum for each in self.read_by(name)))

    def about_media(self, name: str) -> dict[str, Any]:
        """Return how the media of a path are read, as plain values; by modality if it has none."""
        if self.modalities[name].reads:
            return {"reads": {other: self.about_media(other) for other in self.read_by(name)}}
        fields = {"decoder", "encoder", "cue"}
        return self.modalities[name].model_dump(mode="json", include=fields)

    def own_parts(self, name: str) -> tuple[str, ...]:
        """Return the parts of a user's own that the path of a stage depends on."""
        parts = [part.kind for other in self.read_by(name) for part in self.modalities[other].parts]
        return tuple(dict.fromkeys(part for part in (*parts, self.method.name) if is_own(part)))

    def encoder_kinds(self, name: str) -> list[str]:
        """Return the kinds of the encoders of the media that a path reads, each once."""
        parts = (self.modalities[other].parts for other in self.read_by(name))
        return list(dict.fromkeys(encoder.kind for _, encoder in parts))

    def limit_of(self, data: DataSet) -> int | None:
        """Return how many samples of a data set are used; None is all."""
        own = data.limit if isinstance(data, TrainSet) else None
        return min((limit for limit in (own, self.limit) if limit is not None), default=None)


def _with_paths(name: str, modality: Modality) -> Modality:
    sets: tuple[DataSet, ...] = (*modality.train.values(), *modality.test.values())
    for data in sets:
        if data.path not in (None, name):
            raise ValueError(
                f"path of the data sets of {name!r} must be {name!r} or null, got {data.path!r}; "
                "leave it out"
            )
    if not modality.reads:
        return modality
    own = {
        field: {
            key: data.model_copy(update={"path": name})
            for key, data in getattr(modality, field).items()
        }
        for field in ("train", "test")
    }
    return modality.model_copy(update=own)
