"""Picture files to pixels: what the field's formats hold, as 8-bit RGB, or a short reason why not.

The reasons go into a store's ledger, so they depend on the bytes of the file alone: no paths, no library messages.
"""

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""What a picture's file name may end with, in either case."""

MAX_PIXELS = 100_000_000
MAX_SIDE = 65_535

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"RIFF", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# One byte per sample, or a bit: Pillow converts these to RGB as they are meant. 32-bit samples have no agreed range.
_EIGHT_BIT_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG = 0x0112

# Both once and here, since pictures are decoded in threads and warnings.catch_warnings is not safe there. Pillow warns
# of damaged metadata, which is of no use to a detector, and of large pictures, which have a limit of their own above.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", module=r"PIL\.")


class RejectedPictureError(ValueError):
    """A file whose content is no usable picture. `reason` is short and the same on every machine."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture and its file: pixels uint8 [height, width, 3], SHA-256 of the file (32 bytes), size of the file."""

    pixels: NDArray[np.uint8]
    digest: bytes
    nbytes: int


def read_picture(path: Path) -> PictureFile:
    """Read and decode one file.

    Raises RejectedPictureError for what is in the file; OSError, for a file that cannot be read, passes through.
    """
    content = path.read_bytes()
    return PictureFile(decode(content), hashlib.sha256(content).digest(), len(content))


def decode(content: bytes) -> NDArray[np.uint8]:
    """The bytes of a JPEG, PNG, BMP, WebP or TIFF file to uint8 [height, width, 3], RGB, upright as EXIF says.

    Only the first frame counts. Alpha is dropped and the colours under it stay, as OpenCV and Darknet do it. Of 16 bits
    the upper 8 are taken. CMYK is taken as Adobe writes it in JPEG files (inverted), and converted without a profile.
    The size is checked before anything is decoded: at most 100 megapixels and 65,535 pixels a side.
    Raises RejectedPictureError, and no other error, whatever the bytes are.
    """
    if not content:
        raise RejectedPictureError("the file is empty")
    if not content.startswith(_SIGNATURES):
        raise RejectedPictureError("not a JPEG, PNG, BMP, WebP or TIFF file")
    try:
        return _decode(content)
    except (RejectedPictureError, MemoryError):
        raise
    except Exception as error:  # Pillow's parsers raise most of Python's exceptions when a file is damaged
        raise RejectedPictureError("damaged or truncated") from error


def _decode(content: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
            raise RejectedPictureError(f"{image.width}×{image.height} pixels: too large")
        image.load()
        upright = _UPRIGHT.get(_orientation(image))
        # A transparent colour would make Pillow look for a palette entry for it.
        image.info.pop("transparency", None)
        rgb = _to_rgb(image)
        return np.array(rgb if upright is None else rgb.transpose(upright))


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged metadata is no reason to reject a picture, and has no end of exceptions either
        return 1
    return orientation if isinstance(orientation, int) else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode not in _EIGHT_BIT_MODES:
        raise RejectedPictureError(f"pixels of type {image.mode}, which have no agreed range")
    return image.convert("RGB")
