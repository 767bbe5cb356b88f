"""A model of shapes: every module of a recipe's base on the meta device, which holds no numbers."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

from pathweave.bases.hub import download_files, is_remote
from pathweave.bases.llm import CONFIG, check_causal, read_config
from pathweave.bases.mini import KIND, attention, is_connector
from pathweave.bases.pretrained import check_config, qformer_shape, ready_spec
from pathweave.bases.vision_llm import base_of, is_vision_llm, refuse_llm, vision_llm_of
from pathweave.bases.weights_manifest import HubSource
from pathweave.errors import RecipeError
from pathweave.estimate.measure import shapes
from pathweave.model.base import (
    DESCRIPTION,
    LLM_DIRECTORY,
    Base,
    ReadyPath,
    freeze,
    read_description,
)
from pathweave.model.paths import Paths, PathSpec
from pathweave.model.pathweave import PathWeave
from pathweave.nn import Projector, QFormer, QFormerConfig
from pathweave.recipe.schema import Recipe
from pathweave.runs.loading import model_directory
from pathweave.validation import unknown

SIZES = Path(__file__).with_name("sizes.yaml")


@dataclass(frozen=True)
class BaseSizes:
    """Sizes of a base.

    Attributes:
        qformer: Its Q-Former.
        llm: Configuration of its language model.
        ready: The path that it was pretrained with, if any.
        scale: Scale of the projector's tokens; None leaves them as they come.
    """

    qformer: QFormerConfig
    llm: PretrainedConfig
    ready: PathSpec | None = None
    scale: float | None = None


@cache
def known_sizes() -> dict[str, dict[str, Any]]:
    """Return the table of models known by name."""
    return yaml.safe_load(SIZES.read_bytes())


def shape_model(recipe: Recipe) -> PathWeave:
    """Return the base of a recipe, without paths, on the meta device.

    The language model is in bfloat16, Q-Former and projector in float32, as they are loaded.

    Raises:
        RecipeError: If the base is unknown, or its language model is not decoder-only.
        FetchError: If a directory lacks its configuration.
        PathError: If a directory of our own layout is damaged.
    """
    if (published := vision_config(recipe.base)) is not None:
        refuse_llm(recipe.llm, recipe.base)
        with shapes():
            llm = vision_llm_of(published, recipe.base, torch.bfloat16)
            model = PathWeave(base_of(llm, _tokenizer(), recipe.method.reducer.shape))
        freeze(model)
        return model
    sizes = _base_sizes(recipe.base)
    config = sizes.llm if recipe.llm is None else _llm_config(recipe.llm)
    check_causal(config, recipe.llm or recipe.base)
    with shapes():
        llm = AutoModelForCausalLM.from_config(
            config,
            dtype=torch.bfloat16,
            attn_implementation=attention() if recipe.base == "mini" and not recipe.llm else None,
        )
        qformer = QFormer(sizes.qformer)
        embeddings = cast(nn.Embedding, llm.get_input_embeddings())
        # Tokens of a fresh projector are scaled; by how much makes no difference to the cost.
        scale = 1.0 if config.hidden_size != sizes.llm.hidden_size else sizes.scale
        projector = Projector(sizes.qformer.dim, embeddings.embedding_dim, scale)
        ready: tuple[ReadyPath, ...] = ()
        if sizes.ready is not None:
            alone = Paths(sizes.qformer.dim, sizes.qformer.encoder_width, {}).expand(sizes.ready)
            ready = (ReadyPath(sizes.ready, alone.state_dict(), decoder={}, encoder={}),)
        base = Base(
            kind=recipe.base,
            llm=llm,
            tokenizer=_tokenizer(),
            qformer=qformer,
            projector=projector,
            text_tokenizer=None if sizes.qformer.vocab_size is None else _tokenizer(),
            ready_paths=ready,
        )
        model = PathWeave(base)
    freeze(model)
    return model


def vision_config(name: str) -> PretrainedConfig | None:
    """Return the configuration of a base that is a vision LLM, else None.

    Raises:
        FetchError: If a directory lacks it, or the hub cannot be reached.
    """
    directory = Path(name)
    if name in known_sizes()["bases"] or (directory / DESCRIPTION).is_file():
        return None
    if not directory.is_dir() and not is_remote(name):
        return None
    published = _published_config(name)
    return published if is_vision_llm(published) else None


def _base_sizes(name: str) -> BaseSizes:
    known = known_sizes()["bases"]
    directory = Path(name)
    name = KIND if is_connector(directory) else name
    if name in known:
        sizes = known[name]
        shape, config = QFormerConfig(**sizes["qformer"]), AutoConfig.for_model(**sizes["llm"])
        is_ready = "ready" in sizes
        ready = PathSpec(**sizes["ready"]) if is_ready else None
        return BaseSizes(shape, config, ready, None if is_ready else 1.0)
    if (directory / DESCRIPTION).is_file():
        about = read_description(directory)
        llm = read_config(directory / LLM_DIRECTORY)
        return BaseSizes(QFormerConfig(**about["qformer"]), llm, scale=about["projector_scale"])
    if directory.is_dir() or is_remote(name):
        published = _published_config(name)
        check_config(published, directory)
        return BaseSizes(qformer_shape(published), published.text_config, ready_spec(published))
    raise RecipeError(
        f"{unknown('base', name, list(known))}, a directory that holds a base, an InstructBLIP, a "
        "BLIP-2 or a vision LLM, or the id of one on the hub"
    )


def _llm_config(name: str) -> PretrainedConfig:
    known = known_sizes()["llms"]
    if name in known:
        return AutoConfig.for_model(**known[name])
    return _published_config(name if is_remote(name) else str(model_directory("llm", name)))


def _published_config(name: str) -> PretrainedConfig:
    if not is_remote(name):
        return read_config(Path(name))
    with hub_config(name) as directory:
        return read_config(directory)


@contextlib.contextmanager
def hub_config(name: str) -> Iterator[Path]:
    """Yield a directory with the configuration of a model of the hub alone."""
    source = HubSource(kind="hub", repository=name, files=(CONFIG,), num_bytes=1)
    with tempfile.TemporaryDirectory() as directory:
        download_files(name, source, Path(directory), lambda *_: None)
        yield Path(directory)


def words(count: int) -> str:
    """Return a text of so many tokens."""
    return " ".join(["word"] * count)


def _tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of one word: a base must have one, and shapes need its length alone."""
    one = models.WordLevel({"</s>": 0, "word": 1}, unk_token="word")
    tokenizer = Tokenizer(one)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>")
