"""Converters from the form in which weights are published to safetensors and JSON.

Each converter reads the files of one source in a directory and writes the converted files into
another. Which form the source has is seen from the names of its files.
"""

from collections.abc import Callable
from pathlib import Path

from pathweave.bases.convert.aisfx import convert_aisfx
from pathweave.bases.convert.efficientnet import convert_efficientnet
from pathweave.bases.convert.gemma3 import convert_gemma3
from pathweave.bases.convert.minilm import convert_minilm
from pathweave.bases.convert.smollm2 import convert_smollm2
from pathweave.bases.convert.whisper import convert_whisper

CONVERTERS: dict[str, Callable[[Path, Path], None]] = {
    "aisfx": convert_aisfx,
    "efficientnet": convert_efficientnet,
    "gemma3": convert_gemma3,
    "minilm": convert_minilm,
    "smollm2": convert_smollm2,
    "whisper": convert_whisper,
}
