"""Names in the published layouts, and the stages in which the released code departs from its plan.

The modalities here are data of a foreign format: nothing else in the package knows them.
"""

import re

from pathweave.bases.qformer_names import lavis_name

PATH_NAMES = {"": "image", "pc": "point_cloud"}
"""Our names of modalities that are called otherwise in files (BLIP-2's keys bear none at all)."""

VALUE_DEFECT = frozenset({"pc"})
"""Stages whose value experts were trained without effect: in cross-attention they are added to
keys already used; in self-attention they run through the in-adapters of the keys."""

PROJECTOR_DEFECT: dict[str, tuple[int, ...]] = {"depth": (0,)}
"""Stages that leave these adapters out at the projector, and train the other ones again."""

PROJECTORS = ("llm_proj", "opt_proj", "t5_proj")
"""BLIP-2's names of the projector, by language model."""

OTHER_PARTS = re.compile(
    r"(?:\w+_)?encoder\.|(?:llm|opt|t5)_model\.|(?:\w+_)?Qformer\.cls\."
    r"|(?:vision_proj|text_proj|itm_head)\.|temp$"
)
"""Frozen encoder, language model (or their buffers) and heads for pretraining."""

_PREFIX = re.compile(r"(?:(\w+)_)?Qformer\.bert\.")


def path_name(prefix: str) -> str:
    """Return our name of a modality of a file.

    Example:
        >>> path_name("pc"), path_name("audio")
        ('point_cloud', 'audio')
    """
    return PATH_NAMES.get(prefix, prefix)


def file_prefix(name: str) -> str:
    """Return the name that a path's modality has in files.

    Example:
        >>> file_prefix("point_cloud"), file_prefix("image")
        ('pc', 'image')
    """
    theirs = {ours: theirs for theirs, ours in PATH_NAMES.items() if theirs}
    return theirs.get(name, name)


def prefixes(keys: list[str]) -> list[str]:
    """Return the modalities whose Q-Former is among ``keys``; "" is one without a name."""
    found = (match for key in keys if (match := _PREFIX.match(key)))
    return list(dict.fromkeys(match[1] or "" for match in found))


def with_prefix(prefix: str, name: str) -> str:
    """Return a key of a modality.

    Example:
        >>> with_prefix("audio", "ln.weight"), with_prefix("", "query_tokens")
        ('audio_ln.weight', 'query_tokens')
    """
    return f"{prefix}_{name}" if prefix else name


def site_key(site: str) -> str:
    """Return LAVIS's name of the linear layer at a site of the Q-Former.

    Example:
        >>> site_key("layer_2/cross_attention/output")
        'encoder.layer.2.crossattention.output.dense'
    """
    ours = site.replace("layer_", "layers.").replace("/", ".")
    return lavis_name(f"{ours}.host.weight").removesuffix(".weight")
