"""Features of frozen encoders, computed once and kept by content.

The key of a medium's features is a hash of its bytes, of the decoder's settings and of the
encoder's settings and weights. So nothing is ever stale: another crop, rate or checkpoint is
another key, and the same medium in two data sets is encoded once. Each medium is encoded by itself,
so its features do not depend on its company, to the last bit. The directory may be deleted at
any time, and shared by processes that read and write at once.
"""

import contextlib
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from pathweave.decoders import Decoder
from pathweave.encoders.encoder import Encoder
from pathweave.errors import DiskError, ManifestError, MediaError, RecipeError
from pathweave.storage.atomic import disk_errors, sha256_bytes, write_atomic
from pathweave.storage.feature_store import ELSEWHERE, FeatureStore


class FeatureCache:
    """Features on disk, in float16 where the range allows.

    Features in the older form, a file a medium, are read, and copied into the store.

    Args:
        directory: Where the store is; made on the first write.
        memory: Bytes of fresh features that are kept in memory, the latest, and not on disk, which
            is only read then: for media that strangers send. None keeps all on disk.

    Example:
        >>> import tempfile
        >>> from pathweave.decoders import build_decoder
        >>> from pathweave.encoders.media import Array
        >>> from safetensors.torch import save
        >>> class Doubled:
        ...     accepts, width, fingerprint = Array, 8, "doubled"
        ...     def __call__(self, media):
        ...         return [2 * torch.from_numpy(medium.values)[None] for medium in media]
        >>> data = save({"x": torch.ones(3, 8)})
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     cache = FeatureCache(Path(directory))
        ...     cache.features(Doubled(), build_decoder("array"), [(data, "x")])[0].shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, directory: Path, memory: int | None = None) -> None:
        self.directory = Path(directory)
        self.store = FeatureStore(self.directory)
        self._latest = None if memory is None else _Latest(memory)

    def features(
        self,
        encoder: Encoder,
        decoder: Decoder,
        items: Sequence[tuple[bytes, str]],
    ) -> list[Float[Tensor, "units tokens width"]]:
        """Return the features of media, from disk where they are there.

        Fresh features are rounded as stored ones are, so a second call returns the same bits. A
        medium that occurs twice in ``items`` gives the same tensor twice: do not write into it.

        Args:
            encoder: Computes what is missing.
            decoder: Turns bytes into what the encoder accepts.
            items: Bytes and a name for error messages, a pair a medium.

        Raises:
            MediaError: If a medium cannot be decoded or its features are not finite. What was
                encoded before it stays stored.
            RecipeError: If the encoder does not accept what the decoder returns.
            DiskError: If the disk is full or the directory cannot be written.
        """
        keys = [self.key(encoder, decoder, data) for data, _ in items]
        known = {key: features for key in set(keys) if (features := self._read(key)) is not None}
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in known}
        for key, (data, name) in missing.items():
            medium = decoder(data, name)
            if not isinstance(medium, encoder.accepts):
                raise RecipeError(
                    f"encoder {encoder.fingerprint!r} must be given {encoder.accepts}, got "
                    f"{type(medium).__name__} from decoder {decoder.fingerprint!r}; take another"
                )
            # One by one: in a batch, the last bits of a medium's features depend on the batch's
            # size, and so on which media happen to be missing together.
            [fresh] = encoder([medium])
            fresh = fresh.detach().to("cpu", torch.float32)
            if not fresh.isfinite().all():
                raise MediaError(
                    f"features of {name} must be finite, got NaN or infinity; look at the medium"
                )
            half = fresh.to(torch.float16)
            # Some networks have activations beyond float16; infinity would poison the training.
            is_exact = getattr(encoder, "is_exact", False)
            stored = half if half.isfinite().all() and not is_exact else fresh
            (self._latest or self.store).add(key, stored)
            known[key] = stored.to(torch.float32)
        return [known[key] for key in keys]

    def holds(self, encoder: Encoder, decoder: Decoder, data: bytes) -> bool:
        """Return whether there are features of a medium."""
        key = self.key(encoder, decoder, data)
        if (self._latest is not None and self._latest.find(key) is not None) or key in self.store:
            return True
        return self._has_old_form and self._old_file(key).exists()

    def key(self, encoder: Encoder, decoder: Decoder, data: bytes) -> bytes:
        """Return the 32 bytes by which the features of a medium are known."""
        key = "\n".join((sha256_bytes(data), decoder.key, encoder.fingerprint))
        return bytes.fromhex(sha256_bytes(key.encode()))

    def size(self) -> dict[str, Any]:
        """Return what is there: media, bytes and files of the store and of the older form."""
        media, num_bytes, files = self.store.size()
        old = [file for folder in self._old_folders() for file in folder.glob("*.safetensors")]
        sizes = [file.stat().st_size for file in old]
        return {
            "directory": str(self.directory),
            "store": {"media": media, "bytes": num_bytes, "files": files},
            "old": {"media": len(old), "bytes": sum(sizes), "files": len(old)},
            "elsewhere": [str(place) for place in self.store.elsewhere],
        }

    def clear(self) -> None:
        """Delete all features of this directory, of either form.

        Raises:
            DiskError: If they cannot be deleted.
        """
        self.clear_old()
        self.store.clear()

    def clear_old(self) -> None:
        """Delete the features of the older form.

        Raises:
            DiskError: If they cannot be deleted.
        """
        with disk_errors(self.directory):
            for folder in self._old_folders():
                shutil.rmtree(folder)

    def read_too(self, directory: Path) -> None:
        """Read the features of another directory too, from now on, in every process.

        Raises:
            ManifestError: If it holds no features.
            DiskError: If that cannot be noted.
        """
        if not list(directory.glob("*.features")):
            raise ManifestError(
                f"{directory} must hold features that pathweave encode wrote, got none; correct "
                "the path"
            )
        places = [*map(str, self.store.elsewhere)]
        if str(directory.absolute()) not in places:
            lines = "".join(f"{place}\n" for place in (*places, directory.absolute()))
            write_atomic(self.directory / ELSEWHERE, lines.encode())

    def _read(self, key: bytes) -> Tensor | None:
        found = None if self._latest is None else self._latest.find(key)
        if found is None:
            found = self.store.find(key)
        if found is None and self._has_old_form:
            try:
                found = load(self._old_file(key).read_bytes())["features"]
            except (OSError, SafetensorError, KeyError):
                return None
            with contextlib.suppress(DiskError):
                (self._latest or self.store).add(key, found)
        return None if found is None else found.to(torch.float32)

    @cached_property
    def _has_old_form(self) -> bool:
        return any(True for _ in self._old_folders())

    def _old_file(self, key: bytes) -> Path:
        return self.directory / key.hex()[:2] / f"{key.hex()[2:]}.safetensors"

    def _old_folders(self) -> Iterator[Path]:
        yield from (each for each in self.directory.glob("[0-9a-f][0-9a-f]") if each.is_dir())


class _Latest:
    """The features that were used last, of so many bytes; threads may share it."""

    def __init__(self, num_bytes: int) -> None:
        self._room = num_bytes
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: bytes) -> Tensor | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def add(self, key: bytes, features: Tensor) -> None:
        with self._lock:
            if (known := self._kept.pop(key, None)) is not None:
                self._room += known.nbytes
            self._kept[key] = features
            self._room -= features.nbytes
            while self._room < 0:
                self._room += self._kept.popitem(last=False)[1].nbytes
