import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import RequestError
from data.pictures import find_pictures, relative_path, resolve_roots, root_label


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def keys(*inputs: object) -> list[str]:
    return [picture.key for picture in find_pictures([str(each) for each in inputs])]


def test_folders_are_searched_and_sorted(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    touch(root / "b.JPG", root / "a.jpeg", root / "sub" / "deep" / "c.png", root / "notes.txt", root / ".hidden.jpg")
    touch(root / ".cache" / "d.jpg", root / "folder.jpg" / "e.webp")
    found = find_pictures([str(root)])
    assert [picture.key for picture in found] == [
        "photos/a.jpeg",
        "photos/b.JPG",
        "photos/folder.jpg/e.webp",
        "photos/sub/deep/c.png",
    ]
    assert found[3].path == root / "sub" / "deep" / "c.png"
    for picture in found:
        assert root_label(picture.key) == "photos"
        assert root / relative_path(picture.key) == picture.path


def test_a_file_belongs_to_its_folder(tmp_path: Path) -> None:
    touch(tmp_path / "x" / "1.jpg", tmp_path / "x" / "2.jpg", tmp_path / "x" / "3.jpg")
    assert keys(tmp_path / "x" / "2.jpg", tmp_path / "x" / "1.jpg") == ["x/1.jpg", "x/2.jpg"]


def test_roots_of_one_name_are_told_apart(tmp_path: Path) -> None:
    touch(*(tmp_path / each / "1.jpg" for each in ("a/JPEGImages", "b/JPEGImages", "other")))
    roots = [tmp_path / "b" / "JPEGImages", tmp_path / "other", tmp_path / "a" / "JPEGImages"]
    assert keys(*roots) == ["a-JPEGImages/1.jpg", "b-JPEGImages/1.jpg", "other/1.jpg"]
    assert keys(*roots) == keys(*reversed(roots))
    assert keys(f"JPEGImages={roots[0]}", roots[2]) == ["JPEGImages/1.jpg", "a-JPEGImages/1.jpg"]


def test_overlapping_inputs_hold_a_picture_once(tmp_path: Path) -> None:
    touch(tmp_path / "all" / "night" / "1.jpg", tmp_path / "all" / "2.jpg")
    whole, part = tmp_path / "all", tmp_path / "all" / "night"
    assert keys(part, whole, part / "1.jpg", whole) == ["all/2.jpg", "all/night/1.jpg"]
    assert keys(whole, f"dark={part}") == ["all/2.jpg", "dark/1.jpg"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path / "real" / "in" / "1.jpg", tmp_path / "elsewhere" / "2.jpg")
    (tmp_path / "real" / "in" / "up").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "real" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    assert keys(tmp_path / "alias") == ["alias/in/1.jpg", "alias/more/2.jpg"]


def test_an_equals_sign_in_a_real_name_is_no_label(tmp_path: Path) -> None:
    touch(tmp_path / "fold=1" / "1.jpg")
    assert keys(tmp_path / "fold=1") == ["fold=1/1.jpg"]
    assert keys(f"one={tmp_path / 'fold=1'}") == ["one/1.jpg"]


def test_relative_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "here" / "1.jpg")
    monkeypatch.chdir(tmp_path / "here")
    (picture,) = find_pictures(["."])
    assert picture.key == "here/1.jpg"
    assert picture.path.is_absolute()


@given(st.sets(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), min_size=1, max_size=6))
@settings(deadline=None, max_examples=30)
def test_every_picture_has_a_key_of_its_own(tmp_path_factory: pytest.TempPathFactory, folders: set[str]) -> None:
    base = tmp_path_factory.mktemp("p")
    touch(*(base / each / "1.jpg" for each in folders))
    found = find_pictures([str(base / each) for each in sorted(folders)])
    assert len({picture.key for picture in found}) == len(found) == len(folders)
    roots = resolve_roots({root_label(picture.key) for picture in found}, [str(base / each) for each in folders])
    assert all(roots[root_label(p.key)] / relative_path(p.key) == p.path for p in found)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "No pictures in no folders at all"),
        (["empty"], r"No pictures in empty: looked for files ending in \.bmp, .*\.webp"),
        (["absent"], "absent does not exist"),
        (["x=absent"], "absent does not exist"),
        (["=empty"], "no picture folder"),
        (["a/b=empty"], "no picture folder"),
        (["notes.txt"], "no picture by its name"),
        (["x=one", "x=two"], "would all be called x"),
        (["x=one", "y=one"], "two labels, x and y"),
    ],
)
def test_requests_that_make_no_sense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: list[str], message: str
) -> None:
    touch(tmp_path / "one" / "1.jpg", tmp_path / "two" / "1.jpg", tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=message):
        find_pictures(inputs)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.jpg")).touch()
    with pytest.raises(RequestError, match="not UTF-8"):
        find_pictures([str(tmp_path)])


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: str) -> None:
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(RequestError, match="cannot be searched for pictures: Permission denied"):
        find_pictures([str(tmp_path)])


def test_roots_are_found_again(tmp_path: Path) -> None:
    a, b, moved = tmp_path / "a" / "img", tmp_path / "b" / "img", tmp_path / "moved"
    touch(a / "1.jpg", b / "1.jpg", moved / "1.jpg")
    assert resolve_roots({"img"}, [str(moved)]) == {"img": moved}
    assert resolve_roots({"a-img", "b-img"}, [str(a), str(b)]) == {"a-img": a, "b-img": b}
    assert resolve_roots({"b-img"}, [f"b-img={moved}", str(a)]) == {"b-img": moved}
    with pytest.raises(RequestError, match=r"the pictures of a-img; .* stand for img\. .* a-img=FOLDER"):
        resolve_roots({"a-img", "img"}, [str(b)])
    with pytest.raises(RequestError, match=r"the pictures of img; .* stand for other"):
        resolve_roots({"img"}, [f"other={b}"])
    with pytest.raises(RequestError, match="stand for none"):
        resolve_roots({"img"}, [])
