"""The weights of EVA-CLIP's ViT-g/14 from the two formats they are published in.

Transformers: a directory of an InstructBLIP or BLIP-2, of which only the vision model's tensors are
read. LAVIS: the file ``eva_vit_g.pth``. Both end in the class of transformers, whose parameter
names are used here. Nothing is copied before a tensor is brought to its type.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pathweave.bases.hub import is_remote, snapshot
from pathweave.bases.shards import Shards
from pathweave.encoders.published import Published, assign
from pathweave.errors import FetchError, RecipeError
from pathweave.storage.atomic import read_json

LAVIS = Published(
    "EVA-CLIP ViT-g/14",
    ("eva_vit_g.pth",),
    "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/eva_vit_g.pth "
    "(or a whole InstructBLIP such as Salesforce/instructblip-vicuna-7b from the hub)",
    "MIT",
)
TRANSFORMERS = Published(
    "the vision model of an InstructBLIP or BLIP-2",
    ("config.json and model*.safetensors",),
    "the hub (such as Salesforce/instructblip-vicuna-7b)",
    "MIT",
)
# ViT-g/14 as it is used: without its last block.
VIT_G = {
    "hidden_size": 1408,
    "intermediate_size": 6144,
    "num_hidden_layers": 39,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 224,
}
_SETTINGS = {*VIT_G, "hidden_act", "layer_norm_eps", "qkv_bias"}
_POSITIONS = "embeddings.position_embedding"
_PREFIX = "vision_model."
_PLACES = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": _POSITIONS,
    "patch_embed.proj": "embeddings.patch_embedding",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
# The last norm and the projection of CLIP; the network is used without them, and without its last
# block.
_UNUSED = ("norm.", "fc_norm.", "head.")


def load_vision_model(place: Path, size: int | None, dtype: torch.dtype | None) -> Any:  # noqa: ANN401
    """Return the frozen vision model at ``place``, without its final norm.

    Args:
        place: A directory of transformers' format or its identifier on the hub, ``eva_vit_g.pth``,
            or a directory that holds it.
        size: Side of the pictures, pixels; None is the one the weights were made for.
        dtype: Type of the weights of matrices and convolutions; the rest is float32. None reads no
            weights, and makes a model of shapes alone: ViT-g/14 where no configuration is found.

    Returns:
        Transformers' ``InstructBlipVisionModel``.

    Raises:
        FetchError: If the weights are missing, damaged, or of another model.
        RecipeError: If the size does not fit the patches.
    """
    if dtype is not None and is_remote(place.as_posix()):
        place = snapshot(place.as_posix())
    is_transformers = (place / "config.json").is_file()
    config = read_vision_config(place) if is_transformers else _vision_config(VIT_G)
    patch = config.patch_size
    if size is not None:
        if size < patch or size % patch:
            raise RecipeError(f"size must be a positive multiple of {patch}, got {size}")
        config.image_size = size
    model = empty_vision_model(config)
    if dtype is None:
        return model
    state = _transformers_state(place) if is_transformers else _lavis_state(place)
    if _POSITIONS in state and state[_POSITIONS].ndim == 3:
        state[_POSITIONS] = resized_positions(state[_POSITIONS], config.image_size // patch)
    multiplied = {
        f"{name}.{parameter}"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        for parameter, _ in module.named_parameters()
    }
    for name in state:
        state[name] = state[name].to(dtype if name in multiplied else torch.float32)
    assign(model, state, place, TRANSFORMERS if is_transformers else LAVIS)
    return model


def empty_vision_model(config: Any) -> Any:  # noqa: ANN401
    """Return the vision model of transformers, on the meta device and without its last norm."""
    # Importing the models of transformers takes seconds.
    from transformers import InstructBlipVisionModel

    with torch.device("meta"):
        model: Any = InstructBlipVisionModel(config)
        model.post_layernorm = nn.Identity()
    return model


def resized_positions(
    table: Float[Tensor, "1 tokens dim"], side: int
) -> Float[Tensor, "1 resized dim"]:
    """Return position embeddings for a grid of ``side * side`` patches; the first row is kept."""
    grid = math.isqrt(table.shape[1] - 1)
    if grid == side or grid * grid != table.shape[1] - 1:
        return table
    patches = table[:, 1:].float().unflatten(1, (grid, grid)).permute(0, 3, 1, 2)
    resized = F.interpolate(patches, (side, side), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1].float(), resized.flatten(2).transpose(1, 2)], dim=1)


def _vision_config(sizes: Mapping[str, Any]) -> Any:  # noqa: ANN401
    from transformers import InstructBlipVisionConfig

    return InstructBlipVisionConfig(**{k: v for k, v in sizes.items() if k in _SETTINGS})


def _lavis_state(place: Path) -> dict[str, Tensor]:
    file = LAVIS.find(place)
    return renamed(LAVIS.tensors(LAVIS.read(file), file), VIT_G["num_hidden_layers"], file)


def renamed(state: Mapping[str, Tensor], num_layers: int, file: Path) -> dict[str, Tensor]:
    """Return LAVIS' tensors under transformers' names, those of unused parts left out.

    Raises:
        FetchError: If a name is unknown.
    """
    own: dict[str, Tensor] = {}
    for name, tensor in state.items():
        block = re.match(r"blocks\.(\d+)\.", name)
        is_unused = name.startswith(_UNUSED) or (block and int(block[1]) >= num_layers)
        if is_unused or name.endswith(("attn.q_bias", "attn.v_bias")):
            continue
        prefix = f"encoder.layers.{block[1]}." if block else ""
        place = name.removeprefix(block[0]) if block else name
        part, _, kind = place.rpartition(".")
        if place in _PLACES:
            own[prefix + _PLACES[place]] = tensor
        elif part in _PLACES:
            own[f"{prefix}{_PLACES[part]}.{kind}"] = tensor
        else:
            raise LAVIS.wrong(
                file, "hold the weights of EVA-CLIP ViT-g/14 alone", f"{name} as well"
            )
    for i in range(num_layers):
        q, v = (state.get(f"blocks.{i}.attn.{which}_bias") for which in "qv")
        if q is not None and v is not None:
            # Keys have no bias: it would change nothing under the softmax.
            bias = torch.cat([q, torch.zeros_like(q), v])
            own[f"encoder.layers.{i}.self_attn.qkv.bias"] = bias
    return own


def read_vision_config(directory: Path) -> Any:  # noqa: ANN401
    """Return the configuration of the vision model in an InstructBLIP or BLIP-2.

    Raises:
        FetchError: If it is missing or damaged, or says of no such model.
    """
    file = directory / "config.json"
    rule = f"{file} must hold the configuration of {TRANSFORMERS.title}"
    sizes = read_json(file, rule, TRANSFORMERS.remedy, FetchError).get("vision_config")
    if not isinstance(sizes, dict):
        raise TRANSFORMERS.wrong(file, "hold a vision_config", "none")
    try:
        config = _vision_config(sizes)
        config.patch_size, config.image_size = int(config.patch_size), int(config.image_size)
        empty_vision_model(config)
    # The classes check sizes with errors of their own.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise TRANSFORMERS.wrong(file, "hold the sizes of a vision model", reason) from error
    return config


def _transformers_state(directory: Path) -> dict[str, Tensor]:
    state = Shards(directory).under(_PREFIX)
    # The final norm is the first thing on the path that reads its output.
    return {k: v for k, v in state.items() if not k.startswith("post_layernorm.")}
