"""Previews: what a page needs to show or play a medium as a model is given it.

What is shown depends on what a decoder returns, and on what else it can tell of the bytes.
"""

import base64
import io
import wave
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from pathweave.decoders import Decoder, Points, RangeMap
from pathweave.encoders.media import Array, Frames, Series, Waveform
from pathweave.serve.sandbox import Guarded

_MOST_FRAMES = 16
_LONG_SIDE = 512  # pixels of a lone picture; frames of a clip have half
_BINS = 400  # of a waveform or a channel
_MOST_CHANNELS = 16
_MOST_POINTS = 4000
_MOST_SECONDS = 60  # that are played
_MOST_CELLS = 128  # rows and columns of an array


class _Told(Decoder):
    """What a decoder can tell of a medium beside what it gives, told where media are decoded."""

    noun = "medium"
    of: Points | RangeMap

    @property
    def fingerprint(self) -> str:
        return f"told of {self.of.fingerprint}"

    def decode(self, data: bytes) -> Array:
        of = self.of
        told = of.cloud(data) if isinstance(of, Points) else np.array([of.limits(data)])
        return Array(told.astype(np.float32))


def unguarded(decoder: Decoder) -> Decoder:
    """Return a decoder without the sandbox around it."""
    return decoder.inner if isinstance(decoder, Guarded) else decoder


def preview(decoder: Decoder, data: bytes, name: str) -> dict[str, Any]:
    """Return what is to be shown of a medium, as plain values for JSON.

    Every preview has a ``kind``, and a ``caption`` of a few words. Pictures and sounds are data
    URIs: ``frames`` (a list), ``map`` (grey, 64 to 255, with the ``limits`` of its scale in the
    medium's own unit), ``wave`` and ``peaks`` (least and greatest amplitude of equal times),
    ``points`` (x, y, z in the unit ball), ``channels`` (name, and least and greatest value of equal
    times; null where none was recorded).

    Args:
        decoder: What reads it.
        data: Its bytes.
        name: What it is called in messages.

    Raises:
        MediaError: If it cannot be decoded.
        PathWeaveError: If a library is needed and not installed.
    """
    inner = unguarded(decoder)
    guard = decoder.sandbox.guard if isinstance(decoder, Guarded) else lambda other: other
    if isinstance(inner, Points):
        media = guard(_Told(of=inner))(data, name)
        assert isinstance(media, Array)
        return _points(media.values)
    media = decoder(data, name)
    if isinstance(inner, RangeMap) and isinstance(media, Frames) and inner.scaling == "own":
        scale = guard(_Told(of=inner))(data, name)
        assert isinstance(scale, Array)
        least, greatest = map(float, scale.values[0])
        limits = (greatest, least) if inner.larger_is == "farther" else (least, greatest)
        beside = _frames(media.pixels[:-1]) if len(media.pixels) > 1 else {}
        return beside | _map(media.pixels[-1][..., 0], limits)
    if isinstance(media, Frames):
        return _frames(media.pixels)
    if isinstance(media, Waveform):
        return _sound(media)
    return _series(media, inner) if isinstance(media, Series) else _array(media)


def _frames(pixels: UInt8[np.ndarray, "frames height width 3"]) -> dict[str, Any]:
    count = len(pixels)
    shown = pixels[np.linspace(0, count - 1, min(count, _MOST_FRAMES)).astype(int)]
    side = _LONG_SIDE if count == 1 else _LONG_SIDE // 2
    height, width = pixels.shape[1:3]
    return {
        "kind": "frames",
        "caption": f"{count} frames of " * (count != 1) + f"{width} x {height} pixels",
        "frames": [_picture(frame, side, "WEBP") for frame in shown],
    }


def _map(grey: UInt8[np.ndarray, "height width"], limits: tuple[float, float]) -> dict[str, Any]:
    height, width = grey.shape
    return {
        "kind": "map",
        "caption": f"{width} x {height} pixels",
        "map": _picture(grey, _LONG_SIDE, "PNG"),
        "limits": limits,
    }


def _picture(pixels: np.ndarray, side: int, file_format: str) -> str:
    picture = Image.fromarray(pixels)
    # Between a measured pixel and one that is not, there is no mean.
    picture.thumbnail(
        (side, side),
        Image.Resampling.NEAREST if file_format == "PNG" else Image.Resampling.BICUBIC,
    )
    stream = io.BytesIO()
    picture.save(stream, file_format)
    return _data_uri(f"image/{file_format.lower()}", stream.getvalue())


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _sound(media: Waveform) -> dict[str, Any]:
    rate, samples = media.rate, media.samples
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        played = np.rint(samples[: _MOST_SECONDS * rate] * 32767).astype("<i2")
        file.writeframes(played.tobytes())
    seconds = len(samples) / rate
    return {
        "kind": "sound",
        "caption": f"{seconds:.3g} s at {rate:,} Hz",
        "seconds": seconds,
        "wave": _data_uri("audio/wav", stream.getvalue()),
        "peaks": _extremes(samples),
    }


def _series(media: Series, decoder: Decoder) -> dict[str, Any]:
    windows, time, count = media.values.shape
    names = getattr(decoder, "channels", None)
    names = names if isinstance(names, tuple) else [str(n) for n in range(1, count + 1)]
    values = media.values.reshape(-1, count)
    return {
        "kind": "channels",
        "caption": f"{windows} windows of " * (windows > 1)
        + f"{time / media.rate:.3g} s at {media.rate:g} Hz, {count} channels",
        "seconds": len(values) / media.rate,
        "channels": [
            {"name": name, "extremes": _extremes(values[:, i])}
            for i, name in enumerate(names[:_MOST_CHANNELS])
        ],
        "left_out": max(0, count - _MOST_CHANNELS),
    }


def _extremes(values: Float[np.ndarray, " samples"]) -> list[tuple[float, float] | None]:
    """Return the least and the greatest value of equal times; None where all are missing."""
    ends = np.linspace(0, len(values), min(len(values), _BINS) + 1).astype(int)
    parts = np.split(values, ends[1:-1])
    known = [part[np.isfinite(part)] for part in parts]
    return [
        (_short(float(part.min())), _short(float(part.max()))) if len(part) else None
        for part in known
    ]


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _points(points: Float[np.ndarray, "points 3"]) -> dict[str, Any]:
    wide = points.astype(np.float64)  # squares of large numbers do not overflow
    low, high = wide.min(axis=0), wide.max(axis=0)
    if len(wide) > _MOST_POINTS:
        wide = wide[np.random.default_rng(0).choice(len(wide), _MOST_POINTS, replace=False)]
    centred = wide - (low + high) / 2
    ball = centred / (np.linalg.norm(centred, axis=1).max() or 1.0)
    extents = " x ".join(f"{side:.3g}" for side in high - low)
    return {
        "kind": "points",
        "caption": f"{len(points):,} points, {extents}",
        "points": np.round(ball, 3).tolist(),
    }


def _array(media: Array) -> dict[str, Any]:
    rows, columns = media.values.shape
    shown = media.values[:: -(-rows // _MOST_CELLS), :: -(-columns // _MOST_CELLS)]
    shown = shown.astype(np.float64)  # differences of large numbers do not overflow
    least, greatest = float(shown.min()), float(shown.max())
    grey = 64 + 191 * (shown - least) / (greatest - least or 1.0)
    caption = f"{rows:,} x {columns:,} numbers"
    return _map(np.rint(grey).astype(np.uint8), (least, greatest)) | {
        "caption": caption,
        "cells": True,
    }
