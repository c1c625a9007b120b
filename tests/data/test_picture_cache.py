import numpy as np

from data.picture_cache import PictureCache


def test_keeps_up_to_its_bound_and_evicts_nothing() -> None:
    cache = PictureCache(limit_bytes=1000)
    first, second = np.zeros((10, 20, 3), np.uint8), np.ones((10, 20, 3), np.uint8)
    cache.put("first", first)
    cache.put("second", second)
    assert cache.get("first") is first
    assert cache.get("second") is None
    assert cache.kept_bytes == 600


def test_the_same_picture_twice_counts_once() -> None:
    cache = PictureCache(limit_bytes=1000)
    picture = np.zeros((10, 10, 3), np.uint8)
    cache.put("a", picture)
    cache.put("a", picture.copy())
    assert cache.kept_bytes == 300
    assert cache.get("a") is picture
