"""Pictures for people, written whole or not at all."""

import io
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.errors import RequestError

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def check_picture_path(path: Path) -> str:
    """Pillow's name of the format that `path` ends in; RequestError for another ending, or where there is no folder."""
    form = _FORMATS.get(path.suffix.lower())
    if form is None:
        raise RequestError(f"{path} would be a picture of unknown format; end the name in {', '.join(_FORMATS)}.")
    if not path.parent.is_dir():
        raise RequestError(f"The folder {path.parent} for {path.name} does not exist; create it or name another.")
    return form


def save_picture(picture: NDArray[np.uint8], path: Path) -> None:
    """Write an RGB picture, uint8 [height, width, 3], as PNG or JPEG by the ending of `path`, replacing what is there.

    Raises RequestError for another ending or a folder that does not exist; OSError passes through. Either way `path` is
    as it was.
    """
    form = check_picture_path(path)
    encoded = io.BytesIO()
    # JPEG halves the resolution of colour unless told not to, which smears thin coloured lines.
    Image.fromarray(picture).save(encoded, form, **({"quality": 92, "subsampling": 0} if form == "JPEG" else {}))
    staged = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        staged.write_bytes(encoded.getvalue())
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
