"""Features of frozen encoders, computed once and kept by content.

The key of a medium's features is a hash of its bytes, of the decoder's settings and of the
encoder's settings and weights. So nothing is ever stale: another crop, rate or checkpoint is
another key, and the same medium in two data sets is encoded once. Each medium is encoded by itself,
so its features do not depend on its company, to the last bit. The directory may be deleted at
any time, and shared by processes that read and write at once.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pathweave.decoders import Decoder
from pathweave.encoders.encoder import Encoder
from pathweave.errors import MediaError, RecipeError
from pathweave.storage.atomic import new_file, sha256_bytes

_TENSOR = "features"


class FeatureCache:
    """Features on disk, one safetensors file a medium, in float16 where the range allows.

    Args:
        directory: Where the files are; made on the first write.

    Example:
        >>> import tempfile
        >>> from pathweave.decoders import build_decoder
        >>> from pathweave.encoders.media import Array
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

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)

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
        paths = [self.path(encoder, decoder, data) for data, _ in items]
        known = {path: features for path in set(paths) if (features := _read(path)) is not None}
        missing = {path: item for path, item in zip(paths, items, strict=True) if path not in known}
        for path, (data, name) in missing.items():
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
            # Not synced: after a power cut it is computed again.
            with new_file(path, sync=False) as temporary:
                temporary.write_bytes(save({_TENSOR: stored.contiguous()}))
            known[path] = stored.to(torch.float32)
        return [known[path] for path in paths]

    def path(self, encoder: Encoder, decoder: Decoder, data: bytes) -> Path:
        """Return the file that holds, or would hold, the features of a medium."""
        key = "\n".join((sha256_bytes(data), decoder.key, encoder.fingerprint))
        digest = sha256_bytes(key.encode())
        return self.directory / digest[:2] / f"{digest[2:]}.safetensors"


def _read(path: Path) -> Tensor | None:
    try:
        tensor = load(path.read_bytes())[_TENSOR]
    except (OSError, SafetensorError, KeyError):
        # Absent, or damaged: then it is computed again.
        return None
    return tensor.to(torch.float32)
