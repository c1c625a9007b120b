"""Decoded pictures kept in memory, up to a bound: later epochs are spared the decoding."""

import threading

import numpy as np
from numpy.typing import NDArray


class PictureCache:
    """Key to decoded picture (uint8 [height, width, 3]); what comes once the bound is reached is not kept.

    Nothing is ever evicted: every epoch reads every picture once, in another order, where least-recently-used would
    evict each picture just before it is wanted again.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.kept_bytes = 0
        self._pictures: dict[str, NDArray[np.uint8]] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> NDArray[np.uint8] | None:
        """The decoded picture, or None where it is not kept."""
        return self._pictures.get(key)

    def put(self, key: str, picture: NDArray[np.uint8]) -> None:
        """Keep the picture if there is room."""
        with self._lock:
            if key not in self._pictures and self.kept_bytes + picture.nbytes <= self.limit_bytes:
                self._pictures[key] = picture
                self.kept_bytes += picture.nbytes
