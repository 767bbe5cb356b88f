"""Still pictures: any format Pillow reads becomes one RGB frame."""

import io
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps
from pydantic import BaseModel, Field

from pathweave.data.decode.damage import intact, mislabelled
from pathweave.encoders.media import Frames
from pathweave.errors import MediaError

# Pillow runs Ghostscript, an external program, to read these.
_REFUSED_FORMATS = ("EPS",)


class Picture(BaseModel, frozen=True, extra="forbid"):
    """Decodes a still picture to one frame of its own size, upright, transparency on white.

    Args:
        max_pixels: Largest accepted width times height; checked before decoding.

    Example:
        >>> stream = io.BytesIO()
        >>> Image.new("RGB", (6, 4), "red").save(stream, "PNG")
        >>> Picture()(stream.getvalue(), "red.png").pixels.shape
        (1, 4, 6, 3)
    """

    max_pixels: int = Field(default=50_000_000, ge=1, le=178_000_000)

    @property
    def fingerprint(self) -> str:
        """Return the kind; no setting changes the output."""
        return "picture-1"

    def __call__(self, data: bytes, name: str) -> Frames:
        """Decode ``data``; a file with several pictures gives its first.

        Raises:
            MediaError: If the bytes are not a whole picture, or it has too many pixels.
        """
        picture = open_picture(data, name, self.max_pixels)
        return Frames(load_rgb(picture, name)[None])


def open_picture(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """Read the header of a picture and check its size, without decoding it.

    Raises:
        MediaError: If the bytes are not a picture, or it has too many pixels.
    """
    try:
        picture = Image.open(io.BytesIO(data))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, max_pixels, str(error)) from error
    except Exception as error:  # Pillow lets errors of every kind escape from broken files.
        kind = "picture (PNG, JPEG, WebP, GIF, TIFF, ...)"
        raise mislabelled(name, kind, data) from error
    if picture.format in _REFUSED_FORMATS:
        raise MediaError(
            f"{name} must be a pixel format, got {picture.format}, which needs an external program "
            "to read; convert it to PNG"
        )
    check_size(picture, name, max_pixels)
    return picture


def check_size(picture: Any, name: str, max_pixels: int) -> None:  # noqa: ANN401
    """Check that a picture, or anything else with a width and a height, is not too large.

    Raises:
        MediaError: If it has more pixels than the decoder accepts.
    """
    if picture.width * picture.height > max_pixels:
        raise _too_large(name, max_pixels, f"{picture.width} x {picture.height}")


def _too_large(name: str, max_pixels: int, found: str) -> MediaError:
    return MediaError(
        f"{name} must have at most {max_pixels:,} pixels, got {found}; scale it down, or raise "
        "max_pixels of its decoder"
    )


def upright(picture: Image.Image, name: str) -> Image.Image:
    """Decode an opened picture, turned and mirrored as its EXIF says.

    Raises:
        MediaError: If the pixel data is broken or truncated.
    """
    with intact(name, f"{picture.format} picture"):
        return ImageOps.exif_transpose(picture)


def load_rgb(picture: Image.Image, name: str) -> UInt8[np.ndarray, "height width 3"]:
    """Decode an opened picture: upright, 16-bit grey scaled to 8, transparency on white.

    Raises:
        MediaError: If the pixel data is broken or truncated, or has more than 16 bits.
    """
    turned = upright(picture, name)
    with intact(name, f"{picture.format} picture"):
        if turned.mode[0] in "IF":
            values = np.asarray(turned)
            if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
                raise MediaError(
                    f"{name} must have at most 16 bits a channel, got values in "
                    f"[{values.min():g}, {values.max():g}]; convert it to 8 bits, or use the "
                    "decoder 'range_map' for distances"
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
