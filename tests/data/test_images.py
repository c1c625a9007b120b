import hashlib
import io
import re
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data import images
from data.images import RejectedPictureError, decode, read_picture

# The test runner replaces the filter that data.images sets; test_nothing_is_warned_of holds that filter itself.
pytestmark = pytest.mark.filterwarnings("ignore::Warning:PIL")

RED, GREEN, BLUE, BLACK, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def quadrants(height: int = 32, width: int = 48) -> np.ndarray:
    """Red, green over blue, white."""
    pixels = np.empty((height, width, 3), np.uint8)
    h, w = height // 2, width // 2
    pixels[:h, :w], pixels[:h, w:], pixels[h:, :w], pixels[h:, w:] = RED, GREEN, BLUE, WHITE
    return pixels


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    """The colours near the four corners, rounded to full or none: left to right, then down."""
    return [tuple(np.where(pixels[y, x] > 127, 255, 0)) for y in (2, -3) for x in (2, -3)]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_exactly(kind: str) -> None:
    pixels = decode(saved(Image.fromarray(quadrants()), kind))
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    assert np.array_equal(pixels, quadrants())


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_come_back_closely(kind: str) -> None:
    assert corners(decode(saved(Image.fromarray(quadrants()), kind, quality=95))) == [RED, GREEN, BLUE, WHITE]


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    grey = np.array([[0, 255, 256], [0x8000, 0xFF00, 0xFFFF]], np.uint16)
    for kind in ("PNG", "TIFF"):
        pixels = decode(saved(Image.fromarray(grey), kind))
        assert pixels[..., 0].tolist() == [[0, 0, 1], [128, 255, 255]]
        assert (pixels == pixels[..., :1]).all()


def test_grey_bilevel_and_palette() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(decode(saved(Image.fromarray(grey), "PNG")), np.repeat(grey[..., None], 3, axis=2))
    assert corners(decode(saved(Image.fromarray(grey > 127), "PNG"))) == [BLACK, BLACK, WHITE, WHITE]
    palette = Image.fromarray(quadrants()).quantize(8)
    assert corners(decode(saved(palette, "PNG"))) == [RED, GREEN, BLUE, WHITE]
    assert corners(decode(saved(palette, "PNG", transparency=bytes([0, 90, 255])))) == [RED, GREEN, BLUE, WHITE]
    assert corners(decode(saved(palette, "PNG", transparency=1))) == [RED, GREEN, BLUE, WHITE]


def test_alpha_is_dropped_and_the_colours_under_it_stay() -> None:
    rgba = np.dstack([quadrants(), np.zeros((32, 48), np.uint8)])
    assert np.array_equal(decode(saved(Image.fromarray(rgba), "PNG")), quadrants())
    grey_alpha = Image.fromarray(rgba).convert("LA")
    assert corners(decode(saved(grey_alpha, "PNG")))[3] == WHITE


def test_cmyk_of_adobe_is_not_inverted() -> None:
    cmyk = Image.fromarray(quadrants()).convert("CMYK")
    assert b"Adobe" in saved(cmyk, "JPEG")
    assert corners(decode(saved(cmyk, "JPEG", quality=95))) == [RED, GREEN, BLUE, WHITE]
    assert corners(decode(saved(cmyk, "TIFF"))) == [RED, GREEN, BLUE, WHITE]


# The colours of the corners of a file that a viewer turns upright to red, green, blue, white; from the EXIF standard:
# the stored rows and columns that its visual top and left are.
ORIENTED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(ORIENTED[orientation](quadrants()))
    pixels = decode(saved(Image.fromarray(stored), kind, exif=exif))
    assert pixels.shape == (32, 48, 3)
    assert corners(pixels) == [RED, GREEN, BLUE, WHITE]


def test_the_first_frame_counts() -> None:
    first, second = (Image.new("RGB", (20, 10), colour) for colour in (RED, BLUE))
    for kind, options in (("TIFF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("MPO", {})):
        content = saved(first, kind, save_all=True, append_images=[second], **options)
        assert corners(decode(content)) == [RED] * 4


def png_header(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\0")
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (head, body))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"<html>404</html>", "not a JPEG, PNG, BMP, WebP or TIFF file"),
        (b"\xff\xd8\xff", "damaged or truncated"),
        (saved(Image.fromarray(quadrants()), "JPEG")[:-200], "damaged or truncated"),
        (saved(Image.fromarray(quadrants()), "PNG")[:-30], "damaged or truncated"),
        (png_header(30_000, 30_000), "30000×30000 pixels: too large"),
        (png_header(1_000_000, 1), "1000000×1 pixels: too large"),
        (saved(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "pixels of type F, which have no agreed range"),
    ],
)
def test_rejections_have_a_short_reason(content: bytes, reason: str) -> None:
    with pytest.raises(RejectedPictureError) as caught:
        decode(content)
    assert caught.value.reason == str(caught.value) == reason


def small_files() -> list[bytes]:
    image = Image.fromarray(quadrants(12, 16))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x0131] = 6, "description", "software"
    return [
        saved(image, "JPEG", exif=exif),
        saved(image.convert("CMYK"), "JPEG"),
        saved(image, "JPEG", progressive=True),
        saved(image, "PNG", exif=exif),
        saved(image.quantize(4), "PNG", transparency=b"\0\1"),
        saved(image, "PNG", save_all=True, append_images=[image.rotate(180)]),
        saved(image, "TIFF", exif=exif),
        saved(image, "TIFF", compression="tiff_lzw"),
        saved(image, "BMP"),
        saved(image, "WEBP", exif=exif),
        saved(image, "MPO", save_all=True, append_images=[image]),
    ]


FILES = small_files()
REASON = re.compile(
    "the file is empty|not a JPEG, PNG, BMP, WebP or TIFF file|damaged or truncated|"
    r"\d+×\d+ pixels: too large|pixels of type [A-Z;0-9]+, which have no agreed range"
)


@given(st.data())
@settings(deadline=None, max_examples=400)
def test_damaged_files_are_decoded_or_rejected(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(FILES)))
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    try:
        pixels = decode(bytes(content))
    except RejectedPictureError as error:
        reason = error.reason
        assert REASON.fullmatch(reason)
    else:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        assert pixels.size


def test_the_systems_errors_are_no_rejections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError):
        read_picture(tmp_path / "absent.jpg")

    def exhausted(content: bytes) -> None:
        raise MemoryError

    monkeypatch.setattr(images, "_decode", exhausted)
    with pytest.raises(MemoryError):
        decode(FILES[0])


def test_a_file_is_read_with_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(FILES[3])
    picture = read_picture(path)
    assert np.array_equal(picture.pixels, decode(FILES[3]))
    assert picture.digest == hashlib.sha256(FILES[3]).digest()
    assert picture.nbytes == len(FILES[3])


def test_threads_decode_alike() -> None:
    with ThreadPoolExecutor(4) as pool:
        decoded = list(pool.map(decode, FILES * 20))
    for index, pixels in enumerate(decoded):
        assert np.array_equal(pixels, decoded[index % len(FILES)])


def test_nothing_is_warned_of(tmp_path: Path) -> None:
    exif = bytearray(FILES[0])
    count = exif.index(b"Exif") + 20  # of characters in the first tag, the description
    exif[count : count + 4] = b"\0\x40\0\0"
    (tmp_path / "exif.jpg").write_bytes(exif)
    (tmp_path / "bomb.png").write_bytes(png_header(12_000, 8_000))  # above Pillow's limit, below ours; and truncated
    script = (
        "import sys; from pathlib import Path; from data.images import *\n"
        "print(read_picture(Path('exif.jpg')).pixels.shape)\n"
        "try: read_picture(Path('bomb.png'))\n"
        "except RejectedPictureError as error: print(error.reason)\n"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stderr == ""
    assert run.stdout.splitlines() == ["(16, 12, 3)", "damaged or truncated"]
