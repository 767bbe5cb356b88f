"""The weights of EVA-CLIP's ViT-g/14 from the two formats they are published in.

Transformers: a directory of an InstructBLIP or BLIP-2, of which only the vision model's tensors are
read. LAVIS: the file ``eva_vit_g.pth``. Both end in the class of transformers, whose parameter
names are used here. Nothing is copied before a tensor is brought to its type.
"""

import json
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
from pathweave.errors import RecipeError

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


def load_vision_model(place: Path, size: int | None, dtype: torch.dtype) -> Any:  # noqa: ANN401
    """Return the frozen vision model at ``place``, without its final norm.

    Args:
        place: A directory of transformers' format or its identifier on the hub, ``eva_vit_g.pth``,
            or a directory that holds it.
        size: Side of the pictures, pixels; None is the one the weights were made for.
        dtype: Type of the weights of matrices and convolutions; the rest is float32.

    Returns:
        Transformers' ``InstructBlipVisionModel``.

    Raises:
        FetchError: If the weights are missing, damaged, or of another model.
        RecipeError: If the size does not fit the patches.
    """
    if is_remote(place.as_posix()):
        place = snapshot(place.as_posix())
    is_transformers = (place / "config.json").is_file()
    config, state = read_transformers(place) if is_transformers else read_lavis(place)
    patch = config.patch_size
    if size is not None:
        if size < patch or size % patch:
            raise RecipeError(f"size must be a positive multiple of {patch}, got {size}")
        config.image_size = size
    if _POSITIONS in state and state[_POSITIONS].ndim == 3:
        state[_POSITIONS] = resized_positions(state[_POSITIONS], config.image_size // patch)
    model = empty_vision_model(config)
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


def read_lavis(place: Path) -> tuple[Any, dict[str, Tensor]]:
    """Return the configuration and the tensors of ``eva_vit_g.pth`` under transformers' names.

    Raises:
        FetchError: If the file is missing, damaged, or of another model.
    """
    from transformers import InstructBlipVisionConfig

    settings: dict[str, Any] = VIT_G
    file = LAVIS.find(place)
    state = LAVIS.tensors(LAVIS.read(file), file)
    return InstructBlipVisionConfig(**settings), renamed(state, VIT_G["num_hidden_layers"], file)


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


def read_transformers(directory: Path) -> tuple[Any, dict[str, Tensor]]:
    """Return the configuration and the tensors of the vision model in an InstructBLIP or BLIP-2.

    Raises:
        FetchError: If a file is missing or damaged, or the model has no such model.
    """
    from transformers import InstructBlipVisionConfig

    file = directory / "config.json"
    sizes = _json(file).get("vision_config")
    if not isinstance(sizes, dict):
        raise TRANSFORMERS.wrong(file, "hold a vision_config", "none")
    settings: dict[str, Any] = {k: v for k, v in sizes.items() if k in _SETTINGS}
    try:
        config: Any = InstructBlipVisionConfig(**settings)
        config.patch_size, config.image_size = int(config.patch_size), int(config.image_size)
        empty_vision_model(config)
    # The classes check sizes with errors of their own.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise TRANSFORMERS.wrong(file, "hold the sizes of a vision model", reason) from error
    state = Shards(directory).under(_PREFIX)
    # The final norm is the first thing on the path that reads its output.
    return config, {k: v for k, v in state.items() if not k.startswith("post_layernorm.")}


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TRANSFORMERS.wrong(file, "be readable JSON", str(error)) from error
    return content if isinstance(content, dict) else {}
