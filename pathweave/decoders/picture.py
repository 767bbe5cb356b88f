"""Still pictures: any format Pillow reads becomes one RGB frame."""

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps
from pydantic import Field

from pathweave.decoders.decoder import Decoder, as_array
from pathweave.encoders.media import Frames
from pathweave.errors import MediaError

# Pillow runs Ghostscript, an external program, to read these.
_REFUSED_FORMATS = ("EPS",)
_RGB = ((), (3,), (4,))  # axes of an array after height and width: grey, colours, transparency


class Picture(Decoder):
    """Decodes a still picture to one frame of its own size, upright, transparency on white.

    Args:
        max_pixels: Largest accepted width times height; checked before decoding.

    Example:
        >>> stream = io.BytesIO()
        >>> Image.new("RGB", (6, 4), "red").save(stream, "PNG")
        >>> Picture()(stream.getvalue(), "red.png").pixels.shape
        (1, 4, 6, 3)
    """

    noun = "picture (PNG, JPEG, WebP, GIF, TIFF, ...)"
    max_pixels: int = Field(default=50_000_000, ge=1, le=178_000_000)

    @property
    def fingerprint(self) -> str:
        """Return the kind; no setting changes the output."""
        return "picture-1"

    def decode(self, data: bytes) -> Frames:
        """Decode ``data``; a file with several pictures gives its first.

        Raises:
            MediaError: If the picture has too many pixels, or too many bits a channel.
        """
        return Frames(load_rgb(open_picture(data, self.max_pixels))[None])

    def _packed(self, value: Any, rate: int | float | None) -> bytes:  # noqa: ANN401
        return packed([value], "PNG")


def packed(pictures: Iterable[Any], file_format: str) -> bytes:
    """Return a file of pictures, which are Pillow's or arrays ``[height, width, 3]``, or grey.

    Raises:
        MediaError: If one is neither, or an array is not of bytes.
    """
    pages = []
    for picture in pictures:
        if not isinstance(picture, Image.Image):
            array = as_array(picture)
            if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in _RGB:
                raise MediaError(
                    "must be a picture of Pillow or an array [height, width, 3] of uint8, got "
                    f"{list(array.shape)} of {array.dtype}; scale it to 0 to 255 and convert it"
                )
            picture = Image.fromarray(array)
        pages.append(picture)
    if not pages:
        raise MediaError("must have a picture, got none; leave the medium out")
    stream = io.BytesIO()
    more = {"save_all": True, "append_images": pages[1:]} if len(pages) > 1 else {}
    pages[0].save(stream, file_format, **more)
    return stream.getvalue()


def open_picture(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of a picture and check its size, without decoding it.

    Raises:
        MediaError: If it has too many pixels, or needs an external program.
        Exception: If it is no picture.
    """
    try:
        picture = Image.open(io.BytesIO(data))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(max_pixels, str(error)) from error
    if picture.format in _REFUSED_FORMATS:
        raise MediaError(
            f"must be a pixel format, got {picture.format}, read by programs; convert it to PNG"
        )
    check_size(picture, max_pixels)
    return picture


def check_size(picture: Any, max_pixels: int) -> None:  # noqa: ANN401
    """Check that a picture, or anything else with a width and a height, is not too large.

    Raises:
        MediaError: If it has more pixels than the decoder accepts.
    """
    if picture.width * picture.height > max_pixels:
        raise _too_large(max_pixels, f"{picture.width} x {picture.height}")


def _too_large(max_pixels: int, found: str) -> MediaError:
    return MediaError(
        f"must have at most {max_pixels:,} pixels, got {found}; scale it down, or raise max_pixels "
        "of its decoder"
    )


def load_rgb(picture: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    """Decode an opened picture: upright, 16-bit grey scaled to 8, transparency on white.

    Raises:
        MediaError: If it has more than 16 bits a channel.
        Exception: If the pixel data is broken or truncated.
    """
    turned = ImageOps.exif_transpose(picture)
    if turned.mode[0] in "IF":
        values = np.asarray(turned)
        if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
            raise MediaError(
                f"must have at most 16 bits a channel, got values in [{values.min():g}, "
                f"{values.max():g}]; convert it, or use the decoder 'range_map' for distances"
            )
        return np.repeat((values // 257).astype(np.uint8)[..., None], 3, axis=-1)
    if turned.has_transparency_data:
        rgba = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(turned.convert("RGB"))


def resized(
    pixels: UInt8[np.ndarray, "height width 3"], shape: tuple[int, ...]
) -> UInt8[np.ndarray, "rows columns 3"]:
    """Return a picture in the size that ``shape`` begins with."""
    if pixels.shape[:2] == shape[:2]:
        return pixels
    return np.array(Image.fromarray(pixels).resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
