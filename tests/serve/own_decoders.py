"""Decoders of a user's own that take too long, take too much, end their process, or are wrong."""

import os
import time
from typing import ClassVar

import numpy as np

from pathweave.decoders import Decoder
from pathweave.encoders.media import Array


class Own(Decoder):
    noun: ClassVar[str] = "medium of one's own"

    @property
    def fingerprint(self):
        return type(self).__name__


class Sleeper(Own):
    """Sleeps so many seconds as the medium says."""

    def decode(self, data):
        time.sleep(float(data))
        return Array(np.ones((1, 4), dtype=np.float32))


class Hog(Own):
    """Takes so many MB of memory as the medium says."""

    def decode(self, data):
        taken = np.ones((int(data) << 20,), dtype=np.uint8)
        return Array(taken[:4].astype(np.float32)[None])


class Crash(Own):
    """Ends its process."""

    def decode(self, data):
        os.abort()


class Large(Own):
    """Gives back so many MB as the medium says."""

    def decode(self, data):
        return Array(np.zeros((int(data) << 18, 1), dtype=np.float32))


class Wrong(Own):
    """Gives back what is no medium."""

    def decode(self, data):
        return "no medium"
