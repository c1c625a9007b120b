"""Which inputs a detector can be run at."""

from data.errors import RequestError

STRIDE = 32


def check_input_size(size: int) -> None:
    """RequestError unless the size is a positive multiple of the stride."""
    if size < STRIDE or size % STRIDE:
        nearest = max(STRIDE, round(size / STRIDE) * STRIDE)
        raise RequestError(f"--input-size {size} is not a multiple of {STRIDE}; {nearest} is the nearest")
