"""Maps of distances: one number a pixel becomes a grey picture, the nearest brightest."""

from typing import Literal, cast

import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from PIL import ExifTags, Image, ImageOps
from pydantic import Field

from pathweave.decoders.array import MAGIC, read_npy
from pathweave.decoders.decoder import Decoder, describe
from pathweave.decoders.pair import is_pair, unpack_pair
from pathweave.decoders.picture import Picture, load_rgb, open_picture, resized
from pathweave.encoders.media import Frames
from pathweave.errors import MediaError

_MODES = ("L", "I", "F", "I;16", "I;16B", "I;16L")


class RangeMap(Decoder):
    """Decodes a map of distances to one grey frame: nearest 255, farthest 64, unmeasured 0.

    Accepted are pictures with one channel (PNG or TIFF of 8, 16 or 32 bits) and ``.npy`` arrays.
    Zeros, and in floats also NaN and infinity, mean that nothing was measured there. Each map is
    scaled by its own least and greatest measurement, so the unit does not matter.

    A part of a message that names a companion, or a ZIP archive of two files, is a pair: the
    picture taken beside the map, then the map.

    Args:
        larger_is: What a larger number means: ``farther`` for distances (metres, millimetres),
            ``nearer`` for disparity and for the output of most networks that guess distances.
        scaling: ``own`` as above; ``none`` takes the grey values (or colours) of a picture as they
            are, 16 bits cut to 8, for maps that a network wrote as pictures.
        pair: Whether to return two frames, the picture of a pair and then the map, which is
            resized to the picture's size. Otherwise the map alone is returned, of pairs too.
        max_pixels: Largest accepted width times height; checked before decoding.

    Example:
        >>> import io
        >>> stream = io.BytesIO()
        >>> np.save(stream, np.array([[1.0, 3.0, 0.0]]))
        >>> RangeMap()(stream.getvalue(), "wall.npy").pixels[0, :, :, 0]
        array([[255,  64,   0]], dtype=uint8)
    """

    noun = "map (a picture with one channel, .npy)"
    larger_is: Literal["nearer", "farther"] = "farther"
    scaling: Literal["own", "none"] = "own"
    pair: bool = False
    max_pixels: int = Field(default=50_000_000, ge=1, le=178_000_000)

    @property
    def fingerprint(self) -> str:
        """Return the kind and every setting that changes the output."""
        scaling = " scaling=none" if self.scaling == "none" else ""
        pair = " pair" if self.pair else ""
        return f"range_map-2 larger_is={self.larger_is}{scaling}{pair}"

    def decode(self, data: bytes) -> Frames:
        """Decode ``data``.

        Raises:
            MediaError: If they are not a map with one channel, nothing was measured, or a pair is
                wanted and there is none.
        """
        companion, medium = unpack_pair(data) if is_pair(data) else (None, data)
        if not self.pair:
            return Frames(self._grey(medium)[None])
        if companion is None:
            raise MediaError(
                f"must have a companion, the picture taken beside it, got {describe(data)} alone; "
                "name it in the manifest (companion: ...), or set pair: false in the recipe"
            )
        picture = Picture(max_pixels=self.max_pixels)(companion, "has a companion, which")
        [colours] = cast(Frames, picture).pixels
        grey = self._grey(medium, open_picture(companion, self.max_pixels))
        return Frames(np.stack([colours, resized(grey, colours.shape)]))

    def _grey(
        self, data: bytes, beside: Image.Image | None = None
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Return the map upright, by its own orientation or else by that of the picture beside."""
        own = None
        if self.scaling == "own" and data.startswith(MAGIC):
            values = read_npy(data)
            values = values.squeeze() if values.ndim > 2 else values
            if values.ndim != 2 or values.size == 0:
                raise MediaError(
                    f"must have the shape [height, width], got {list(values.shape)}; save one map"
                )
            grey = self._scaled(values)
        else:
            picture = open_picture(data, self.max_pixels)
            if self.scaling == "none":
                grey = load_rgb(picture)
            elif picture.mode in _MODES:
                grey = self._scaled(np.asarray(ImageOps.exif_transpose(picture)))
            else:
                raise MediaError(
                    f"must have one channel of distances, got a {picture.format} picture of mode "
                    f"{picture.mode}; save the distances, or use the decoder 'picture'"
                )
            own = picture.getexif().get(ExifTags.Base.Orientation)
        # A map that stands while the picture is stored lying was turned before it was saved.
        if (
            beside is None
            or own is not None
            or (grey.shape[1] - grey.shape[0]) * (beside.width - beside.height) < 0
        ):
            return grey
        turned = Image.fromarray(grey)
        turned.getexif()[ExifTags.Base.Orientation] = beside.getexif().get(
            ExifTags.Base.Orientation, 1
        )
        return np.array(ImageOps.exif_transpose(turned))

    def limits(self, data: bytes) -> tuple[float, float]:
        """Return the least and the greatest measurement of a map, in its own unit.

        Raises:
            MediaError: See ``decode``.
        """
        medium = unpack_pair(data)[1] if is_pair(data) else data
        if medium.startswith(MAGIC):
            values = read_npy(medium)
        else:
            values = np.asarray(open_picture(medium, self.max_pixels))
        values, is_measured = _measured(values)
        return float(values[is_measured].min()), float(values[is_measured].max())

    def _scaled(self, values: np.ndarray) -> UInt8[np.ndarray, "height width 3"]:
        values, is_measured = _measured(values)
        nearness = np.where(is_measured, values, 0)
        nearness = nearness if self.larger_is == "nearer" else -nearness
        return np.repeat(brightness(nearness, is_measured)[..., None], 3, axis=-1)


def _measured(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a map as float32, and where something was measured."""
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    is_measured = np.isfinite(values) & (values != 0)
    if not is_measured.any():
        raise MediaError("must hold at least one measurement, got zeros or NaN; leave it out")
    if (least := values[is_measured].min()) < 0:
        raise MediaError(
            f"must hold distances above 0 (0: not measured), got {least:g}; shift or clip them"
        )
    return values, is_measured


def brightness(
    nearness: Float32[np.ndarray, "height width"],
    is_known: Shaped[np.ndarray, "height width"],
) -> UInt8[np.ndarray, "height width"]:
    """Scale the known values to grey: greatest 255, least 64 (a quarter), unknown 0."""
    least = nearness[is_known].min()
    spread = nearness[is_known].max() - least
    if spread == 0:
        return np.where(is_known, 255, 0).astype(np.uint8)
    scaled = 0.25 + 0.75 * (nearness - least) / spread
    return np.where(is_known, np.rint(255 * scaled), 0).astype(np.uint8)
