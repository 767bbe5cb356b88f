"""Functions of the tasks of MCL-mini: from a row to messages, from answers to a score."""

import io
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from pathweave.data.media_store import MediaStore
from pathweave.extras import import_extra
from pathweave.metrics import METRICS

Answered = tuple[str, Sequence[str]]
"""An answer, and the references that it is compared with."""


@lru_cache(maxsize=8)
def _store(file: Path) -> MediaStore:
    return MediaStore(file)


def to_messages(doc: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the question of a row.

    Pictures and sounds are given as other models of lmms-eval take them, all else as the bytes of
    its file. They are read from ``$MCL_MINI``, or else ``data/mcl-mini`` where the command runs.
    """
    root = Path(os.environ.get("MCL_MINI", "data/mcl-mini"))
    content: list[dict[str, Any]] = []
    for part in doc["messages"][0]["content"]:
        if part["type"] == "text":
            content.append({"type": "text", "text": part["text"]})
            continue
        file, _, key = part["path"].partition("#")
        data = _store((root / part["type"] / file).resolve()).read(key)
        content.append({"type": part["type"], "url": _as_known(part["type"], data)})
    return [{"role": "user", "content": content}]


def _as_known(kind: str, data: bytes) -> Any:  # noqa: ANN401
    if kind == "image":
        return Image.open(io.BytesIO(data)).convert("RGB")
    if kind == "audio":
        sound, rate = import_extra("soundfile", "sound").read(io.BytesIO(data), dtype="float32")
        return {"array": sound, "sampling_rate": rate}
    return data


def answered(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Answered]:
    """Return what each metric takes of a row: the answer and the references."""
    return dict.fromkeys(("exact_match", "cider_d"), (results[0], doc["references"]))


def score_exact_match(items: Sequence[Answered]) -> float:
    """Return the share of right answers in percent."""
    return _score("exact_match", items)


def score_cider_d(items: Sequence[Answered]) -> float:
    """Return CIDEr-D x 100 of captions."""
    return _score("cider_d", items)


def _score(metric: str, items: Sequence[Answered]) -> float:
    answers, references = zip(*items, strict=True)
    return METRICS[metric].score(METRICS[metric].measure(answers, references))
