"""Plug-in of lmms-eval: runs as models of it, MCL-mini as tasks of it."""

from typing import Any


def manifest() -> Any:  # noqa: ANN401
    """Return what lmms-eval is told of the model ``pathweave`` (entry point of its plug-ins)."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("pathweave", chat_class_path="pathweave.lmms_eval.lmms_chat.LmmsChat")
