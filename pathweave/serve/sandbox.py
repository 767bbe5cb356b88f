"""The sandbox: decoders run in processes of their own, which may be killed.

A medium that fills the memory, never ends or breaks the library that reads it ends such a process
and its own request, nothing else. This bounds what a medium can use up. It is no jail: code that a
medium makes a library run has the rights of the server.
"""

import json
import multiprocessing
import os
import pickle
import queue
import signal
from contextlib import suppress
from dataclasses import fields
from multiprocessing.connection import Connection
from threading import Lock, Thread
from typing import Any, get_args

import numpy as np
import psutil
import torch

from pathweave.decoders import Decoder
from pathweave.encoders.media import Media
from pathweave.errors import MediaError, PathWeaveError

PRELOADED = ["pathweave.serve.sandbox", "av", "soundfile", "soxr", "trimesh"]
MEDIA = {kind.__name__: kind for kind in get_args(Media)}
READY = b"ready"
START_SECONDS = 120.0  # on a busy machine, importing torch may take long


class Sandbox:
    """A pool of processes that decode.

    Args:
        workers: Number of processes.
        seconds: Longest time that decoding a medium may take, by the clock and on a processor.
        memory: Most bytes that it may take beside what the process has when it starts.

    Attributes:
        failures: Media that could not be decoded.
        killed: Processes that were ended.
    """

    def __init__(self, workers: int = 2, seconds: float = 20.0, memory: int = 2 << 30) -> None:
        self.seconds, self.memory = seconds, memory
        self.failures = self.killed = 0
        self._counting = Lock()
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(workers):
            self._idle.put(None)  # started when first needed
        self._workers, self._closed = workers, False

    def guard(self, decoder: Decoder) -> "Guarded":
        """Return a decoder that does the work of another one in here."""
        return Guarded(inner=decoder, sandbox=self)

    def decode(self, decoder: Decoder, data: bytes, name: str) -> Media:
        """Return what a decoder makes of a medium; threads may call it at once.

        Raises:
            MediaError: As the decoder does; if decoding takes too long or too much memory, or ends
                the process.
            PathWeaveError: As the decoder does.
        """
        worker = self._idle.get()
        try:
            if self._closed:
                raise PathWeaveError("the server is shutting down; ask again when it is back")
            worker = worker or _Worker(self.memory, self.seconds)
            return worker.decode(decoder, data, name)
        except PathWeaveError:
            with self._counting:
                self.failures += 1
            raise
        finally:
            if worker is not None and not worker.is_alive:
                worker = None
                with self._counting:
                    self.killed += 1
            self._idle.put(worker)

    def start(self) -> Thread:
        """Start a process in a thread, so that the first medium need not wait for it."""

        def start_one() -> None:
            worker = self._idle.get()
            with suppress(PathWeaveError):  # the first medium tells
                worker = worker or _Worker(self.memory, self.seconds)
            self._idle.put(worker)

        thread = Thread(target=start_one, daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """End the processes as they become free; nothing is decoded from then on."""
        self._closed = True
        for _ in range(self._workers):
            if (worker := self._idle.get()) is not None:
                worker.end()
        for _ in range(self._workers):
            self._idle.put(None)  # whoever waits still is told


class Guarded(Decoder, arbitrary_types_allowed=True):
    """A decoder that works in a sandbox; features are kept as those of the one inside.

    Args:
        inner: The decoder.
        sandbox: Where it works.
    """

    noun = "medium"
    inner: Decoder
    sandbox: Sandbox

    @property
    def fingerprint(self) -> str:
        """Return that of the decoder inside."""
        return self.inner.fingerprint

    @property
    def key(self) -> str:
        """Return that of the decoder inside."""
        return self.inner.key

    def decode(self, data: bytes) -> Media:
        """Decode ``data``; see the decoder inside."""
        return self(data, "the medium")

    def pack(self, value: Any, rate: int | float | None = None) -> bytes:  # noqa: ANN401
        """Return the bytes of a file; see the decoder inside."""
        return self.inner.pack(value, rate)

    def __call__(self, data: bytes, name: str) -> Media:
        """Decode ``data``; ``name`` is used in error messages only."""
        return self.sandbox.decode(self.inner, data, name)


def inside(decoder: Decoder) -> Decoder:
    """Return the decoder that does the work, guarded or not."""
    return decoder.inner if isinstance(decoder, Guarded) else decoder


class _Worker:
    """A process that decodes one medium after another."""

    def __init__(self, memory: int, seconds: float) -> None:
        forks = "forkserver" in multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:  # what decoders import is imported once, and not by each process
            context.set_forkserver_preload(PRELOADED)
        self._memory, self._seconds = memory, seconds
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=_work, args=(far, memory, seconds), daemon=True)
        self._process.start()
        far.close()
        if not self._pipe.poll(START_SECONDS) or not self._is_ready():
            self.end()
            raise PathWeaveError(
                f"a process that decodes must start within {START_SECONDS:g} s, got none; look at "
                "the log of the server"
            )

    def _is_ready(self) -> bool:
        with suppress(EOFError, OSError):
            return self._pipe.recv_bytes() == READY
        return False

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def decode(self, decoder: Decoder, data: bytes, name: str) -> Media:
        try:
            self._pipe.send_bytes(pickle.dumps((decoder, name)))
            self._pipe.send_bytes(data)
            if not self._pipe.poll(self._seconds):
                self.end()
                raise MediaError(
                    f"{name} must be decoded within {self._seconds:g} s, got no end; give a "
                    "shorter or smaller one, or start the server with a longer --decode-seconds"
                )
            return _received(self._pipe, self._memory)
        except (EOFError, OSError) as error:
            self.end()
            code = self._process.exitcode or 0
            reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise MediaError(
                f"{name} must be a medium that can be decoded, got one that ends the process "
                f"({reason}); replace it, or give a smaller one"
            ) from error


def _received(pipe: Connection, memory: int) -> Media:
    """Return a medium, or raise the error, that comes from a process; nothing is unpickled."""
    try:
        about = json.loads(pipe.recv_bytes(1 << 20))
    except (ValueError, RecursionError) as error:  # nothing that this code has sent
        raise EOFError from error
    if "error" in about:
        raise (MediaError if about["is_medium"] else PathWeaveError)(about["error"])
    values = np.frombuffer(bytearray(pipe.recv_bytes(memory)), np.dtype(about["dtype"]))
    return MEDIA[about["kind"]](values.reshape(about["shape"]), **about["rest"])


def _work(pipe: Connection, memory: int, seconds: float) -> None:
    """Decode whatever comes through a pipe, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which closes the pipe
    torch.set_num_threads(1)
    _limit("RLIMIT_DATA", getattr(psutil.Process().memory_info(), "data", 0) + memory)
    _limit("RLIMIT_CORE", 0)
    pipe.send_bytes(READY)
    with suppress(EOFError, OSError):
        while True:
            decoder, name = pickle.loads(pipe.recv_bytes())
            data = pipe.recv_bytes()
            used = sum(os.times()[:2])
            _limit("RLIMIT_CPU", int(used + seconds) + 2)
            about, values = _decoded(decoder, data, name, memory)
            pipe.send_bytes(json.dumps(about).encode())
            if values is not None:
                pipe.send_bytes(values.data.cast("B"))
            del data, values


def _limit(name: str, most: int) -> None:
    with suppress(ImportError, AttributeError, ValueError, OSError):  # no such limit here
        import resource

        kind = getattr(resource, name)
        resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))


def _decoded(
    decoder: Decoder, data: bytes, name: str, memory: int
) -> tuple[dict[str, Any], np.ndarray | None]:
    try:
        medium = decoder(data, name)
        if type(medium).__name__ not in MEDIA:
            raise MediaError(
                f"{name} must be decoded to one of {sorted(MEDIA)}, got {type(medium).__name__}; "
                "correct the decoder"
            )
        first, *others = (field.name for field in fields(medium))
        values = np.ascontiguousarray(getattr(medium, first))
        if values.nbytes > memory:
            raise MemoryError
    except PathWeaveError as error:
        if isinstance(error.__cause__, MemoryError):
            return _too_large(name, memory), None
        return {"error": str(error), "is_medium": isinstance(error, MediaError)}, None
    except MemoryError:
        return _too_large(name, memory), None
    about = {"kind": type(medium).__name__, "dtype": values.dtype.str, "shape": values.shape}
    return {**about, "rest": {other: getattr(medium, other) for other in others}}, values


def _too_large(name: str, memory: int) -> dict[str, Any]:
    return {
        "error": f"{name} must be decoded with at most {memory >> 20:,} MB, got one that takes "
        "more; give a smaller one, or start the server with a larger --decode-memory",
        "is_medium": True,
    }
