import numpy as np
import pytest

from data.errors import RequestError
from stages.networks.anchors import kmeans_anchors


def test_separate_clusters_are_found_smallest_first() -> None:
    random = np.random.default_rng(3)
    centres = np.array([[9.0, 4.0], [1.0, 1.5], [3.0, 8.0]])
    sizes = np.concatenate([centre * random.uniform(0.95, 1.05, (40, 2)) for centre in centres])
    anchors, mean_iou = kmeans_anchors(sizes, k=3, seed=0)
    expected = [sizes[40:80].mean(axis=0), sizes[80:].mean(axis=0), sizes[:40].mean(axis=0)]
    np.testing.assert_allclose(anchors, expected, rtol=1e-12)
    assert 0.92 < mean_iou < 1


def test_mean_iou_is_that_of_each_box_with_its_best_anchor() -> None:
    sizes = np.array([[2.0, 2.0], [2.0, 1.0], [10.0, 10.0]])
    anchors, mean_iou = kmeans_anchors(sizes, k=2)
    assert anchors == ((2.0, 1.5), (10.0, 10.0))
    assert mean_iou == pytest.approx((3 / 4 + 2 / 3 + 1) / 3)


def test_equal_arguments_give_equal_anchors() -> None:
    sizes = np.random.default_rng(1).lognormal(0, 1, (300, 2))
    assert kmeans_anchors(sizes, seed=7) == kmeans_anchors(sizes, seed=7)


def test_distance_is_relative_so_anchors_scale_with_the_boxes() -> None:
    sizes = np.random.default_rng(2).lognormal(0, 0.8, (200, 2))
    small, iou = kmeans_anchors(sizes, seed=4)
    large, same_iou = kmeans_anchors(sizes * 32, seed=4)
    np.testing.assert_allclose(np.array(large), np.array(small) * 32, rtol=1e-9)
    assert same_iou == pytest.approx(iou)


def test_fewer_different_boxes_than_anchors_are_refused() -> None:
    with pytest.raises(RequestError, match="there are 2"):
        kmeans_anchors(np.array([[1.0, 2.0], [1.0, 2.0], [3.0, 3.0]]), k=3)


def test_sizes_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        kmeans_anchors(np.array([[1.0, 0.0], [1.0, 2.0]]), k=1)
