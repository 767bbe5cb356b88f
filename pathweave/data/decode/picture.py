"""Still pictures: any format Pillow reads becomes one RGB frame."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps
from pydantic import BaseModel, Field

from pathweave.data.decode.describe import describe
from pathweave.encoders.media import Frames
from pathweave.errors import MediaError

# How the values of EXIF's orientation turn a picture, as arguments of `turned`.
TURNS: dict[int | None, tuple[bool, int, int]] = {
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}
_ORIENTATION = 0x0112

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
        raise MediaError(
            f"{name} must be a whole picture (PNG, JPEG, WebP, GIF, TIFF, ...), got "
            f"{describe(data)}; replace the file or declare the right decoder"
        ) from error
    if picture.format in _REFUSED_FORMATS:
        raise MediaError(
            f"{name} must be a pixel format, got {picture.format}, which needs an external program "
            "to read; convert it to PNG"
        )
    if picture.width * picture.height > max_pixels:
        raise _too_large(name, max_pixels, f"{picture.width} x {picture.height}")
    return picture


def load_rgb(picture: Image.Image, name: str) -> UInt8[np.ndarray, "height width 3"]:
    """Decode an opened picture: upright, 16-bit grey scaled to 8, transparency on white.

    Raises:
        MediaError: If the pixel data is broken or truncated.
    """
    try:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode[0] in "IF":
            return _grey_to_rgb(np.asarray(upright), name)
        if upright.has_transparency_data:
            rgba = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        return np.array(upright.convert("RGB"))
    except MediaError:
        raise
    except Exception as error:  # Pillow lets errors of every kind escape from broken files.
        raise MediaError(
            f"{name} must be a whole {picture.format} picture, got one that breaks off or is "
            f"damaged ({error}); copy or write the file again"
        ) from error


def orientation(picture: Image.Image) -> int | None:
    """Return EXIF's orientation of an opened picture, or None if it has none that can be read."""
    try:
        return picture.getexif().get(_ORIENTATION)
    except Exception:  # Pillow lets errors of every kind escape from broken files.
        return None


def turned(
    pixels: UInt8[np.ndarray, "height width 3"], swaps: bool, down: int, right: int
) -> UInt8[np.ndarray, "rows columns 3"]:
    """Return a picture, its axes swapped or not, then each as it is (1) or reversed (-1)."""
    pixels = pixels.swapaxes(0, 1) if swaps else pixels
    return np.ascontiguousarray(pixels[::down, ::right])


def resized(
    pixels: UInt8[np.ndarray, "height width 3"], shape: tuple[int, ...]
) -> UInt8[np.ndarray, "rows columns 3"]:
    """Return a picture in the size that ``shape`` begins with."""
    if pixels.shape[:2] == shape[:2]:
        return pixels
    return np.array(Image.fromarray(pixels).resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def _grey_to_rgb(
    values: np.ndarray,
    name: str,
) -> UInt8[np.ndarray, "height width 3"]:
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise MediaError(
            f"{name} must have at most 16 bits a channel, got values in [{values.min():g}, "
            f"{values.max():g}]; convert it to 8 bits, or use the decoder 'range_map' for distances"
        )
    return np.repeat((values // 257).astype(np.uint8)[..., None], 3, axis=-1)


def _too_large(name: str, max_pixels: int, found: str) -> MediaError:
    return MediaError(
        f"{name} must have at most {max_pixels:,} pixels, got {found}; scale it down, or raise "
        "max_pixels of its decoder"
    )
