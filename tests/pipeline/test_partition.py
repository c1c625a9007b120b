"""Who is trained on and who judges: disjoint by content, whatever the lists, the seed and the copies."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import RequestError
from data.store.slots import SoftLabelTable
from pipeline.partition import Partition, partition
from pipeline.picture_pool import PoolPicture
from pipeline.train_request import TrainRequest
from stages.student.samples import StoredLabels
from stages.student.soft_targets import Grid
from tests.pictures import write_list

TABLE = SoftLabelTable(
    np.zeros(1, np.int64), np.zeros((0, 3), np.int16), np.zeros((0, 6), np.float16), np.zeros(0, np.uint8), (1, 6, 1, 1)
)


def pool_of(folder: Path, contents: dict[str, bytes], with_soft: frozenset[str] = frozenset()) -> list[PoolPicture]:
    """Files that need not be pictures: only their content counts here."""
    pool = []
    for name, content in sorted(contents.items()):
        path = folder / f"{name}.jpg"
        path.write_bytes(content)
        digest = hashlib.sha256(content).digest()
        soft = (
            (StoredLabels(TABLE, 0, digest, Grid(((1, 1),), 1, 1), "letterbox", 32, 32),) if name in with_soft else ()
        )
        pool.append(PoolPicture(f"root/{name}.jpg", path, soft))
    return pool


def split(pool: list[PoolPicture], annotated: str = "", **request: Any) -> tuple[Partition, list[str]]:
    """`annotated`: the names of annotated pictures, one letter each."""
    notes: list[str] = []
    return partition(TrainRequest(**request), pool, lambda p: p.path.stem in annotated, notes), notes


def names(pictures: list[PoolPicture]) -> str:
    return "".join(picture.path.stem for picture in pictures)


def test_lists_decide(tmp_path: Path):
    pool = pool_of(tmp_path, {name: name.encode() for name in "abcdef"})
    train, val, test = (str(write_list(tmp_path / f"{name}.txt", list(name))) for name in ("abz", "cd", "e"))
    parts, notes = split(pool, "abcdef", train_lists=(train,), val_lists=(val,), test_lists=(test,))
    assert (names(parts.training), names(parts.validation)) == ("ab", "cd")
    assert notes == [f"1 entries of {train} are absent: z"]
    parts, _ = split(pool, "abcdef", val_lists=(val,), test_lists=(test,))
    assert (names(parts.training), names(parts.validation)) == ("abf", "cd")


def test_the_seed_holds_out_annotated_pictures_first(tmp_path: Path):
    letters = "abcdefghijklmnop"
    pool = pool_of(tmp_path, {name: name.encode() for name in letters}, frozenset(letters))
    request = {"val_fraction": 0.5, "stores": ("x",)}
    parts, _ = split(pool, "abcdefgh", **request)
    assert parts.validation
    assert set(names(parts.validation)) < set("abcdefgh")
    assert sorted(names(parts.training) + names(parts.validation)) == sorted(letters)
    other, _ = split(pool, "abcdefgh", seed=1, **request)
    assert names(other.validation) != names(parts.validation)
    unannotated, _ = split(pool, "", **request)
    assert set(names(unannotated.validation)) & set("ijklmnop")


def test_copies_of_what_the_seed_holds_out_are_held_out_too(tmp_path: Path):
    pool = pool_of(tmp_path, {name: b"same" if name in "abcd" else name.encode() for name in "abcdefgh"})
    for seed in range(6):
        parts, notes = split(pool, "abcdefgh", val_fraction=0.4, seed=seed)
        held = len(set(names(parts.validation)) & set("abcd"))
        trained = set(names(parts.training)) & set("abcd")
        assert not (held and trained)
        assert any("copies of held-out pictures" in note for note in notes) == (0 < held < 4)


def test_one_content_under_two_names_is_refused_between_lists(tmp_path: Path):
    pool = pool_of(tmp_path, {"a": b"same", "b": b"same", "c": b"c"})
    val = str(write_list(tmp_path / "val.txt", ["b"]))
    for request in ({"val_lists": (val,)}, {"test_lists": (val,), "val_fraction": 0.0}):
        with pytest.raises(RequestError, match=r"root/a\.jpg and root/b\.jpg are the same file"):
            split(pool, "abc", **request)


def test_what_teaches_nothing_is_left_out_and_counted(tmp_path: Path):
    pool = pool_of(tmp_path, {name: name.encode() for name in "abcd"}, frozenset("bc"))
    parts, notes = split(pool, "a", val_fraction=0.0, stores=("x",))
    assert names(parts.training) == "abc"
    assert notes == ["1 pictures are neither annotated nor distilled from, and are left out"]
    parts, notes = split(pool, "a", val_fraction=0.0, stores=("x",), distillation_weight=0.0)
    assert names(parts.training) == "a"
    assert notes == ["3 pictures are neither annotated nor distilled from, and are left out"]
    with pytest.raises(RequestError, match="no picture is left to train on"):
        split(pool, "", val_fraction=0.0, stores=("x",), distillation_weight=0.0)


def test_a_share_of_too_few_is_said(tmp_path: Path):
    pool = pool_of(tmp_path, {"a": b"a"})
    empty = [seed for seed in range(20) if not split_of_one(pool, seed)[0].validation]
    assert empty
    assert any("holds no picture out" in note for note in split_of_one(pool, empty[0])[1])


def split_of_one(pool: list[PoolPicture], seed: int) -> tuple[Partition, list[str]]:
    try:
        return split(pool, "a", val_fraction=0.1, seed=seed)
    except RequestError:  # the only picture is held out
        return Partition([], pool), []


LETTERS = "abcdefg"


@settings(max_examples=80, deadline=None)
@given(
    contents=st.lists(st.integers(0, 4), min_size=len(LETTERS), max_size=len(LETTERS)),
    lists=st.tuples(*[st.sets(st.sampled_from(LETTERS), max_size=4)] * 3),
    annotated=st.sets(st.sampled_from(LETTERS)),
    soft=st.sets(st.sampled_from(LETTERS)),
    fraction=st.sampled_from([0.0, 0.3, 0.6]),
    weight=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 3),
)
def test_no_content_is_on_both_sides(
    tmp_path_factory: pytest.TempPathFactory,
    contents: list[int],
    lists: tuple[set[str], set[str], set[str]],
    annotated: set[str],
    soft: set[str],
    fraction: float,
    weight: float,
    seed: int,
):
    folder = tmp_path_factory.mktemp("any")
    pool = pool_of(folder, {n: bytes([c]) for n, c in zip(LETTERS, contents, strict=True)}, frozenset(soft))
    files = [
        (str(write_list(folder / f"{i}.txt", sorted(entries))),) if entries else () for i, entries in enumerate(lists)
    ]
    request = {"train_lists": files[0], "val_lists": files[1], "test_lists": files[2], "val_fraction": fraction}
    try:
        parts, _ = split(pool, "".join(annotated), **request, stores=("x",), distillation_weight=weight, seed=seed)
    except RequestError:
        return
    trained = set(names(parts.training))
    judged = set(names(parts.validation)) | lists[1] | lists[2]
    assert trained
    assert not trained & judged
    content = dict(zip(LETTERS, contents, strict=True))
    assert not {content[name] for name in trained} & {content[name] for name in judged}
    assert trained <= annotated | (soft if weight else set())
    assert trained <= (lists[0] or set(LETTERS))
    assert not lists[1] or set(names(parts.validation)) == lists[1]
