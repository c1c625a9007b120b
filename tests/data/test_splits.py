from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import RequestError
from data.pictures import find_pictures
from data.splits import assert_disjoint, read_list, select, split_by_seed

BCCD = Path(__file__).parents[2].parent / "shared" / "data" / "bccd"


def listed(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "list.txt"
    path.write_text(text)
    return read_list(path)


def test_lists(tmp_path: Path) -> None:
    assert listed(tmp_path, "a\n\n# no\n  b.jpg \nsub/c\n") == ["a", "b.jpg", "sub/c"]
    assert listed(tmp_path, "\ufeffa\r\nb\r\n") == ["a", "b"]
    assert listed(tmp_path, "a  1\nb -1\nc  0\n") == ["a", "c"]
    assert listed(tmp_path, "my photo.jpg\nother 1.jpg\n") == ["my photo.jpg", "other 1.jpg"]
    assert listed(tmp_path, "photo 1\nphoto\n") == ["photo 1", "photo"]


def test_unusable_lists(tmp_path: Path) -> None:
    for text in ("", "# nothing\n\n", "a -1\n"):
        with pytest.raises(RequestError, match=r"list\.txt lists no pictures"):
            listed(tmp_path, text)
    with pytest.raises(RequestError, match="cannot be read as a list"):
        read_list(tmp_path / "absent.txt")
    (tmp_path / "list.txt").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(RequestError, match="no text in UTF-8"):
        read_list(tmp_path / "list.txt")


KEYS = ["set/a.jpg", "set/sub/b.png", "set/sub/c.jpg", "other/c.jpg", "set/v1.2.jpg"]


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ("a", "set/a.jpg"),
        ("a.jpg", "set/a.jpg"),
        ("set/a", "set/a.jpg"),
        ("./a.jpg", "set/a.jpg"),
        ("/data/here/set/a.jpg", "set/a.jpg"),
        ("data/set/images/sub/b.png", "set/sub/b.png"),
        ("b", "set/sub/b.png"),
        ("sub/c", "set/sub/c.jpg"),
        ("other/c", "other/c.jpg"),
        ("c", "other/c.jpg"),
        ("v1.2", "set/v1.2.jpg"),
    ],
)
def test_entries_name_pictures(entry: str, key: str) -> None:
    assert select([entry], KEYS).keys == (key,)


def test_unknown_entries_are_listed_unless_all_are() -> None:
    selection = select(["b", "x", "a", "y.jpg", "a", "other/b"], KEYS)
    assert selection.keys == ("set/a.jpg", "set/sub/b.png")
    assert selection.unknown == ("x", "y.jpg", "other/b")
    with pytest.raises(RequestError, match="None of the 2 listed pictures is there; the first is x"):
        select(["x", "y"], KEYS)


def test_ambiguous_entries_are_refused_and_suffixes_can_decide() -> None:
    with pytest.raises(RequestError, match=r"a could belong to p/a\.jpg as well as to q/a\.jpg"):
        select(["a"], ["p/a.jpg", "q/a.jpg"])
    assert select(["a.png"], ["p/a.jpg", "p/a.png"]).keys == ("p/a.png",)


keys = st.sets(st.text(min_size=1, max_size=8), max_size=30)


@given(keys, keys, st.floats(0, 0.99), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_added_pictures_move_no_other(some: set[str], more: set[str], share: float, seed: int) -> None:
    training, held = split_by_seed(some, share, seed)
    assert sorted([*training, *held]) == sorted(some)
    training_of_all, held_of_all = split_by_seed(some | more, share, seed)
    assert set(training) <= set(training_of_all)
    assert set(held) <= set(held_of_all)
    assert set(held) <= set(split_by_seed(some, min(share + 0.005, 0.995), seed)[1])


def test_the_share_is_kept_and_the_seed_counts() -> None:
    names = [f"set/{number}.jpg" for number in range(10_000)]
    _, held = split_by_seed(names, 0.2, 0)
    assert 1_850 < len(held) < 2_150
    _, other = split_by_seed(names, 0.2, 1)
    assert 300 < len(set(held) & set(other)) < 500
    assert split_by_seed(names, 0, 0)[1] == []
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(RequestError, match="held-out share"):
            split_by_seed(names, share, 0)


def test_splits_stay_the_same_between_releases() -> None:
    assert split_by_seed("abcdefgh", 0.5, 7)[1] == ["a", "c"]


def test_disjoint_by_content() -> None:
    assert_disjoint({"a": b"1", "b": b"2"}, {"c": b"3"})
    assert_disjoint({}, {})
    with pytest.raises(RequestError, match="1 training pictures are held out too: b and c are the same"):
        assert_disjoint({"a": b"1", "b": b"2"}, {"c": b"2"})


@pytest.mark.skipif(not BCCD.exists(), reason="the BCCD photographs are not beside this checkout")
def test_bccd_lists() -> None:
    keys = [picture.key for picture in find_pictures([str(BCCD / "JPEGImages")])]
    chosen = {
        name: select(read_list(BCCD / "ImageSets" / "Main" / f"{name}.txt"), keys) for name in ("train", "val", "test")
    }
    assert {name: len(each.keys) for name, each in chosen.items()} == {"train": 205, "val": 87, "test": 72}
    assert not any(each.unknown for each in chosen.values())
