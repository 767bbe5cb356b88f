"""A decoder of one's own: recordings that a logger writes as JSON."""

import json
from typing import ClassVar

import numpy as np

from pathweave.decoders import Decoder
from pathweave.encoders.media import Series
from pathweave.errors import MediaError


class JsonRecording(Decoder):
    """Reads ``{"hz": 50, "rows": [[0.1, 9.8], ...]}``; its fields are options in a recipe."""

    noun: ClassVar[str] = "recording in JSON"
    rate: float

    @property
    def fingerprint(self) -> str:
        """Return the kind and every setting that changes the output."""
        return f"json-recording-1 rate={self.rate:g}"

    def decode(self, data: bytes) -> Series:
        """Decode a recording as one window. What ``json`` and numpy raise is reported as it is."""
        found = json.loads(data)
        if found["hz"] != self.rate:
            raise MediaError(f"must have {self.rate:g} Hz, got {found['hz']}; resample it first")
        return Series(np.array(found["rows"], dtype=np.float32)[None], self.rate)
