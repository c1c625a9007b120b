"""The pictures of the ablation, laid out as `distill` reads them: one folder per use, one annotation folder, lists."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ablation.drives import TWIN_DIFFERENCE, Shares, nearest, split_at_random, split_drives
from data.annotations import read_annotations
from data.splits import read_list

UNLABELLED_SHARES = (25, 50, 100)
BCCD_ANNOTATED = 51

CARLA_SMALLEST = 12.0
"""Side in pixels of 512×304 of a square as large: a simulator annotates what nobody could see, and four fifths of its
traffic lights are 5 pixels wide. Below it an object is difficult: neither learnt nor counted, as KITTI's small ones."""
CARLA_LEFT_OUT = ("traffic_sign",)
"""28 of that size in all: too few to measure by."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A data set made ready. images: to label and train on. test_images: seen by nobody but the evaluation.

    annotations: of all pictures. known: of those alone that a student may know (labelled and validation). names: of the
    classes. lists: files of stems by name: labelled, validation, test, unlabelled-25 …. facts: for the page.
    """

    name: str
    images: Path
    test_images: Path
    annotations: Path
    known: Path
    names: Path
    lists: dict[str, Path]
    facts: dict[str, Any]

    @property
    def training(self) -> list[str]:
        """Stems of all pictures that a student may learn from."""
        return self.lists["labelled"].read_text().split() + self.lists["unlabelled-100"].read_text().split()

    def count(self, *names: str) -> int:
        """Pictures on these lists."""
        return sum(len(self.lists[name].read_text().split()) for name in names)


def make_carla(source: Path, folder: Path) -> Pool:
    """All pictures of both parts of the data set, split anew by drives (ablation/drives.py)."""
    files = {path.stem: path for part in ("train", "test") for path in (source / part / "JPEGImages").glob("*.jpg")}
    split = split_drives(list(files), Shares())
    training = split.labelled + split.unlabelled
    twins = nearest(split.test, training, files)
    random_training, random_test = split_at_random(list(files), len(split.test), seed=0)
    random_twins = nearest(random_test, random_training, files)
    facts = {
        "labelled": len(split.labelled),
        "unlabelled": len(split.unlabelled),
        "validation": len(split.validation),
        "test": len(split.test),
        "left out": len(split.left_out),
        "twins": _twin_rate(twins),
        "twins of a random split": _twin_rate(random_twins),
    }
    written = {path.stem: path for part in ("train", "test") for path in (source / part / "Annotations").glob("*.xml")}
    facts["difficult"] = sum(_without_invisible(path, folder / "visible" / path.name) for path in written.values())
    written = {stem: folder / "visible" / path.name for stem, path in written.items()}
    parts = {"labelled": split.labelled, "validation": split.validation, "test": split.test}
    return _pool("carla", folder, files, written, parts, split.unlabelled, facts)


def make_bccd(source: Path, folder: Path) -> Pool:
    """The data set's own lists; a quarter of its training pictures keep their annotation, chosen by digest."""
    lists = {name: read_list(source / "ImageSets" / "Main" / f"{name}.txt") for name in ("train", "val", "test")}
    files = {path.stem: path for path in (source / "JPEGImages").glob("*.jpg")}
    shuffled = sorted(lists["train"], key=lambda stem: hashlib.sha256(stem.encode()).digest())
    labelled, unlabelled = shuffled[:BCCD_ANNOTATED], shuffled[BCCD_ANNOTATED:]
    facts = {
        "labelled": len(labelled),
        "unlabelled": len(unlabelled),
        "validation": len(lists["val"]),
        "test": len(lists["test"]),
    }
    written = {path.stem: path for path in (source / "Annotations").glob("*.xml")}
    parts = {"labelled": labelled, "validation": lists["val"], "test": lists["test"]}
    return _pool("bccd", folder, files, written, parts, unlabelled, facts)


def _pool(
    name: str,
    folder: Path,
    files: Mapping[str, Path],
    written: Mapping[str, Path],
    parts: Mapping[str, Sequence[str]],
    unlabelled: Sequence[str],
    facts: dict[str, Any],
) -> Pool:
    # nested, so that more unlabelled pictures only ever adds some
    shuffled = sorted(unlabelled, key=lambda stem: hashlib.sha256(stem.encode()).digest())
    series = {f"unlabelled-{share}": shuffled[: round(len(shuffled) * share / 100)] for share in UNLABELLED_SHARES}
    lists = {}
    (folder / "lists").mkdir(parents=True, exist_ok=True)
    for part, stems in {**parts, **series}.items():
        lists[part] = folder / "lists" / f"{part}.txt"
        lists[part].write_text("".join(f"{stem}\n" for stem in stems))
    _copy(files, [*parts["labelled"], *unlabelled, *parts["validation"]], folder / "training")
    _copy(files, parts["test"], folder / "test")
    _copy(written, list(written), folder / "annotations")
    _copy(written, [*parts["labelled"], *parts["validation"]], folder / "known")
    names = folder / "names.txt"
    names.write_text("".join(f"{each}\n" for each in read_annotations(folder / "annotations").classes))
    return Pool(
        name, folder / "training", folder / "test", folder / "annotations", folder / "known", names, lists, facts
    )


def _without_invisible(source: Path, target: Path) -> int:
    """Copy a VOC annotation, without the classes left out and with small objects marked difficult; how many were."""
    tree = ElementTree.parse(source)
    root, marked = tree.getroot(), 0
    for node in root.findall("object"):
        if node.findtext("name") in CARLA_LEFT_OUT:
            root.remove(node)
            continue
        box = {edge: float(node.findtext(f"bndbox/{edge}") or "nan") for edge in ("xmin", "ymin", "xmax", "ymax")}
        if (box["xmax"] - box["xmin"]) * (box["ymax"] - box["ymin"]) < CARLA_SMALLEST**2:
            for old in node.findall("difficult"):
                node.remove(old)
            ElementTree.SubElement(node, "difficult").text = "1"
            marked += 1
    target.parent.mkdir(parents=True, exist_ok=True)
    tree.write(target, encoding="unicode")
    return marked


def _copy(files: Mapping[str, Path], stems: Sequence[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stem in stems:
        shutil.copyfile(files[stem], folder / files[stem].name)


def _twin_rate(found: Sequence[tuple[float, str, str]]) -> float:
    return sum(difference < TWIN_DIFFERENCE for difference, _, _ in found) / len(found)
