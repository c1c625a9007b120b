"""Whatever is in an annotation file: it is read, or refused with a message; nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.annotations import read_annotations
from data.errors import RequestError

VOC = b"""<annotation><size><width>9</width><height>9</height></size><object><name>a</name><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>7.5</xmax><ymax>8</ymax></bndbox></object></annotation>"""
COCO = b"""{"images": [{"id": 1, "file_name": "1.jpg", "width": 9, "height": 9}],
"categories": [{"id": 1, "name": "a"}],
"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3.5, 4], "iscrowd": 0}]}"""
YOLO = b"0 0.5 0.5 0.25 1e-1\n1 0.1 0.2 0.3 0.4\n"
YAML = b"path: x\nnames:\n  0: a\n  1: b\n"
FILES = {"voc": ("1.xml", VOC), "coco": ("i.json", COCO), "yolo": ("1.txt", YOLO), "yaml": ("data.yaml", YAML)}


@pytest.mark.parametrize("kind", FILES)
@given(data=st.data())
@settings(deadline=None, max_examples=120)
def test_damaged_files(tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / kind
    folder.mkdir(exist_ok=True)
    name, whole = FILES[kind]
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
            st.sampled_from(b'0179.-e"{}[]<>&,: \n\0\xffan')
        )
    start = data.draw(st.integers(0, len(content)))
    (folder / name).write_bytes(content[: start or None])
    if kind == "yaml":
        (folder / "1.txt").write_bytes(YOLO)
    try:
        annotations = read_annotations(
            folder, "yolo" if kind == "yaml" else kind, None if kind != "yolo" else ["a", "b"]
        )
    except RequestError:
        return
    truth = annotations.truth("p/1.jpg", 9, 12)
    if truth is not None:
        assert np.isfinite(truth.boxes).all()
        assert (truth.boxes[:, :2] < truth.boxes[:, 2:]).all()
        assert (truth.boxes >= 0).all()
        assert (truth.boxes <= [12, 9, 12, 9]).all()
