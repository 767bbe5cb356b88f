"""A base: the pretrained vision language model that paths are added to."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shutil import copymode
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from pathweave.errors import PathError, RecipeError
from pathweave.model.chat_reader import Reader
from pathweave.model.paths import PathSpec
from pathweave.model.prompt import Template
from pathweave.nn import Projector, QFormer, QFormerConfig
from pathweave.storage.atomic import new_directory
from pathweave.storage.bundle import Bundle
from pathweave.storage.tensors import (
    hashed_settings,
    load_exactly,
    tensors_hash,
    write_tensors,
)

SAMPLED_VALUES = 64
DESCRIPTION, TENSORS = "base.json", "connector.safetensors"
SAVED_BASE = Bundle(
    "a base or its connector",
    DESCRIPTION,
    (TENSORS,),
    frozenset({"kind", "fingerprint", "qformer", "projector_scale", "template", "licences"}),
    remedy="copy the whole directory again, or train the first stage anew",
)
LLM_DIRECTORY, TEXT_DIRECTORY = "llm", "text"


def with_contiguous_head(llm: PreTrainedModel) -> PreTrainedModel:
    """Make a language model's head take contiguous input, and return the model.

    Transformers hands the last token's hidden states to the head as a strided view. On a CPU torch
    then copies the head's weight once per row of the batch: 3.6 GB for 64 rows of a vocabulary of
    49,152, for nothing.
    """
    llm.get_output_embeddings().register_forward_pre_hook(lambda _, args: (args[0].contiguous(),))
    return llm


def keep_words(llm: PreTrainedModel, dtype: torch.dtype) -> None:
    """Give a language model's table of words a type of its own; its layers stay as they are.

    Layers of the type they are stored in stay mapped from their file: none of them is read but for
    the few values of the fingerprint. It then makes embeddings, and no answers.
    """
    words = llm.get_input_embeddings().to(dtype)
    for name, buffer in words.named_buffers():  # a factor of Gemma's, rounded to the type before
        buffer.fill_(getattr(words, f"scalar_{name}", buffer))


def ends_of(llm: PreTrainedModel) -> list[int]:
    """Return the tokens at which a language model stops generating, as far as it says."""
    ends = getattr(llm.generation_config, "eos_token_id", None)
    return [] if ends is None else list(ends) if isinstance(ends, list) else [ends]


@dataclass(frozen=True)
class ReadyPath:
    """A path that a base was pretrained with, and how its media are read.

    Attributes:
        spec: What it is made of; it has no adapters.
        state: Its tensors, named as in ``Path.state_dict()``.
        decoder: Kind and options of the decoder.
        encoder: Kind and options of the encoder.
    """

    spec: PathSpec
    state: Mapping[str, Tensor]
    decoder: Mapping[str, Any]
    encoder: Mapping[str, Any]


@dataclass
class Base:
    """Frozen language model, Q-Former and projector, and how text is put to them.

    Attributes:
        kind: Name of the base, such as ``mini``.
        llm: The frozen language model.
        tokenizer: Its tokenizer.
        qformer: The Q-Former.
        projector: Map into the language model's embeddings.
        text_tokenizer: Tokenizer of the Q-Former's text; None for one without text.
        template: Words around a prompt.
        licences: Licence of each part, by name.
        ready_paths: Paths it was pretrained with.
        llm_identity: Hash that stands for the language model in the fingerprint, where its weights
            are quantised and so take other forms; None takes the weights themselves.
        fresh_projector: Whether the projector has random weights, so that a stage must train the
            connector before any other.
        reader: Its processor, or the tokenizer of a chat model, which lays conversations out; None
            for a base with words of its own (``template``).
        native: Kinds of media that it reads by itself.
        shares_connector: Whether Q-Former and projector are pretrained and shared by all paths.
            Otherwise each path has its own, and these are what they start from.
        tail: Frozen module between the projector and the language model, if any.
        answer_end: The token with which its chat template closes an answer; None is that of the
            language model.
        after_prompt: What an answer's tokens are marked with, where a model takes marks along its
            tokens; what is not named is marked as the last token of the prompt.
        llm_sample: What the fingerprint reads of the language model; None reads it when it is
            asked for.
    """

    kind: str
    llm: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    qformer: QFormer
    projector: Projector
    text_tokenizer: PreTrainedTokenizerBase | None
    template: Template = field(default_factory=Template)
    licences: dict[str, str] = field(default_factory=dict)
    ready_paths: tuple[ReadyPath, ...] = ()
    llm_identity: str | None = None
    fresh_projector: bool = False
    reader: Reader | None = None
    native: tuple[str, ...] = ()
    shares_connector: bool = True
    tail: nn.Module | None = None
    answer_end: int | None = None
    after_prompt: Mapping[str, int] = field(default_factory=dict)
    llm_sample: Mapping[str, Tensor] | None = None

    @property
    def end_token(self) -> int:
        """The token that ends an answer: one at which the language model stops generating."""
        if self.answer_end is not None:
            return self.answer_end
        ends, own = ends_of(self.llm), self.tokenizer.eos_token_id
        return cast(int, own if not ends or own in ends else ends[0])

    @property
    def connector(self) -> nn.ModuleDict:
        """Q-Former and projector."""
        return nn.ModuleDict({"qformer": self.qformer, "projector": self.projector})

    @property
    def num_tunable(self) -> int:
        """Parameters that full tuning trains: of the connector, or of a vision LLM all."""
        if self.shares_connector:
            return sum(t.numel() for t in self.connector_state().values())
        return sum(p.numel() for p in self.llm.parameters())

    def connector_state(self) -> dict[str, Tensor]:
        """Return the tensors of Q-Former and projector; none where paths have their own."""
        return dict(self.connector.state_dict()) if self.shares_connector else {}

    def fingerprint(self) -> str:
        """Return the hash that a path records of its base: connector, language model, template.

        The connector counts with every value. A language model of billions of parameters counts
        with the name, shape and first values of each tensor: enough to tell two models apart. They
        are rounded to bfloat16, so that the type in which it was loaded makes no difference.
        """
        settings = [
            hashed_settings(self.template),
            hashed_settings(self.qformer.shape),
            self.projector.scale,
        ]
        if self.llm_identity is None:
            sample = self.llm_sample or first_values(dict(self.llm.named_parameters()))
            identity = tensors_hash(sample, seed=repr(settings))
        else:
            identity = repr([self.llm_identity, settings])
        return tensors_hash(self.connector_state(), seed=identity)

    def sample_llm(self) -> None:
        """Keep what the fingerprint reads of the language model, before its weights are moved."""
        self.llm_sample = first_values(dict(self.llm.named_parameters()))


def sampled_hash(tensors: Mapping[str, Tensor], seed: str) -> str:
    """Return a hash of name, shape and first values of tensors, rounded to bfloat16."""
    return tensors_hash(first_values(tensors), seed=seed)


@torch.no_grad()
def first_values(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return of each tensor its first values, rounded to bfloat16, and its shape."""
    sampled = {}
    for name, tensor in tensors.items():
        first = tensor.detach().flatten()[:SAMPLED_VALUES].bfloat16().float().cpu()
        sampled[name] = torch.cat([first, torch.tensor(tensor.shape, dtype=torch.float32)])
    return sampled


def native_dtype() -> torch.dtype:
    """Return bfloat16 where the processor multiplies it natively, else float32.

    ``PATHWEAVE_DTYPE`` in the environment decides otherwise.

    Raises:
        RecipeError: If that is neither of the two.
    """
    if chosen := os.environ.get("PATHWEAVE_DTYPE"):
        if chosen not in ("bfloat16", "float32"):
            raise RecipeError(
                f"PATHWEAVE_DTYPE must be bfloat16 or float32, got {chosen!r}; correct or unset it"
            )
        return cast(torch.dtype, getattr(torch, chosen))
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if torch.cuda.is_available() or has_bf16() else torch.float32


def freeze(module: nn.Module) -> None:
    """Make a module constant: no gradients, evaluation mode."""
    module.requires_grad_(False)
    module.eval()


def save_base(base: Base, directory: Path, whole: bool = False) -> None:
    """Write the connector and what it belongs to.

    Args:
        base: The base.
        directory: What to write.
        whole: Write the language model and the tokenizers too, so that the directory is a base by
            itself (``load_directory``).

    Raises:
        DiskError: If the directory cannot be written.
    """
    with new_directory(directory) as temporary:
        write_tensors(temporary / TENSORS, base.connector_state())
        if whole:
            base.llm.save_pretrained(temporary / LLM_DIRECTORY)
            base.tokenizer.save_pretrained(temporary / LLM_DIRECTORY)
            if base.text_tokenizer is not None:
                base.text_tokenizer.save_pretrained(temporary / TEXT_DIRECTORY)
            for file in filter(Path.is_file, temporary.glob("*/*")):
                # Transformers writes weights that only their owner can read.
                copymode(temporary / TENSORS, file)
        about = {
            "kind": base.kind,
            "fingerprint": base.fingerprint(),
            "qformer": asdict(base.qformer.shape),
            "projector_scale": base.projector.scale,
            "template": asdict(base.template),
            "licences": base.licences,
        }
        SAVED_BASE.describe(temporary, about)


def load_directory(directory: Path, dtype: torch.dtype, layers: bool = True) -> Base:
    """Return the base in a directory that ``save_base(..., whole=True)`` wrote.

    Args:
        directory: The directory.
        dtype: Type of the language model's weights.
        layers: Whether the language model is to answer; see ``keep_words``.

    Raises:
        PathError: If something is missing or damaged.
    """
    about, shape, template = open_directory(directory)
    parts = [LLM_DIRECTORY, *([TEXT_DIRECTORY] if shape.vocab_size else [])]
    try:
        wanted = dtype if layers else "auto"
        llm = AutoModelForCausalLM.from_pretrained(directory / LLM_DIRECTORY, dtype=wanted)
        tokenizer, *text = [AutoTokenizer.from_pretrained(directory / part) for part in parts]
    # A damaged model or tokenizer makes the readers fail in many ways.
    except Exception as error:
        raise PathError(
            f"{directory} must hold a whole language model and whole tokenizers, got "
            f"{' '.join(repr(error).split())[:200]}; copy the whole directory again"
        ) from error
    freeze(with_contiguous_head(llm))
    if not layers:
        keep_words(llm, dtype)
    dim = cast(nn.Embedding, llm.get_input_embeddings()).embedding_dim
    base = Base(
        kind=about["kind"],
        llm=llm,
        tokenizer=tokenizer,
        qformer=QFormer(shape),
        projector=Projector(shape.dim, dim, about["projector_scale"]),
        text_tokenizer=text[0] if text else None,
        template=template,
        licences=about["licences"],
    )
    load_connector(base, directory)
    return base


def open_directory(directory: Path) -> tuple[dict[str, Any], QFormerConfig, Template]:
    """Return what ``base.json`` says of a whole base, if all its parts are there.

    Raises:
        PathError: If something is missing or damaged; tensors are not read.
    """
    about = read_description(directory)
    shape, template = _settings(directory, about)
    needed = [TENSORS, f"{LLM_DIRECTORY}/", *([f"{TEXT_DIRECTORY}/"] if shape.vocab_size else [])]
    for part in needed:
        if not (directory / part).exists():
            raise PathError(f"{directory} must hold {part}, got none; copy the whole directory")
    return about, shape, template


def read_description(directory: Path) -> dict[str, Any]:
    """Return what ``base.json`` says of a base or connector, without a look at the tensors.

    Raises:
        PathError: If it is missing or damaged, or of another format.
    """
    return SAVED_BASE.read(directory, quick=True)


def _settings(directory: Path, about: Mapping[str, Any]) -> tuple[QFormerConfig, Template]:
    try:
        return QFormerConfig(**about["qformer"]), Template(**about["template"])
    except (TypeError, ValueError) as error:  # of a newer version, or edited
        raise SAVED_BASE.broken(directory, error) from error


def load_connector(base: Base, directory: Path) -> str:
    """Load a saved connector into a base of the same kind, and return the base's fingerprint.

    Raises:
        PathError: If the directory is damaged or was saved from another kind of base.
    """
    about, state = SAVED_BASE.read(directory), SAVED_BASE.load(directory, TENSORS)
    shape, _ = _settings(directory, about)
    if about["kind"] != base.kind or shape != base.qformer.shape:
        raise PathError(
            f"{directory} must be a connector of base {base.kind!r} with {base.qformer.shape}, got "
            f"{about['kind']!r} with {shape}; name the base it was trained with in the recipe"
        )
    rule = f"{directory / TENSORS} must hold exactly the tensors of the connector"
    load_exactly(base.connector, state, rule, "the file is damaged", stay=True)
    base.fresh_projector = False
    if (fingerprint := base.fingerprint()) != about["fingerprint"]:
        raise PathError(
            f"{directory} must belong to this language model, got another fingerprint; the file "
            "is damaged or the language model differs from the one it was trained with"
        )
    return fingerprint
