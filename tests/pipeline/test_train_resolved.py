"""What `auto` comes to."""

from types import SimpleNamespace

import pytest

from pipeline.train_resolved import _of_the_teacher


def test_the_teachers_anchors_keep_their_share_of_the_picture_at_another_input_size() -> None:
    attributes = SimpleNamespace(
        input=SimpleNamespace(width=416), teacher=SimpleNamespace(anchors=((1.3, 2.6), (13.0, 6.5)))
    )
    store = SimpleNamespace(attributes=attributes)
    assert _of_the_teacher(store, 416) == ((1.3, 2.6), (13.0, 6.5))  # type: ignore[arg-type]
    smaller = _of_the_teacher(store, 320)  # type: ignore[arg-type]
    for (width, height), (teacher_width, teacher_height) in zip(smaller, attributes.teacher.anchors, strict=True):
        assert width / 10 == pytest.approx(teacher_width / 13)
        assert height / 10 == pytest.approx(teacher_height / 13)
