from pathlib import Path

import pytest

from data.darknet.cfg import parse_cfg, read_names, read_text
from data.errors import RequestError


def test_sections_keys_and_comments() -> None:
    sections = parse_cfg("[net]\n# note\nwidth = 32 ; behind\n\n;note\n[ route ]\nlayers=-1, 4 # two\n", "x.cfg")
    assert [(s.type, s.line) for s in sections] == [("net", 1), ("route", 6)]
    assert sections[0].options == {"width": "32"}
    assert sections[1].integers("layers") == [-1, 4]
    assert sections[0].integer("height", 7) == 7


def test_of_a_repeated_key_the_first_counts_as_in_darknet() -> None:
    assert parse_cfg("[net]\nbatch=1\nbatch=64\n", "x.cfg")[0].integer("batch", 0) == 1


@pytest.mark.parametrize("text", ["", "[convolutional]\nfilters=2\n", "width=3\n[net]\n"])
def test_a_text_that_does_not_begin_with_net_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match=r"x\.cfg"):
        parse_cfg(text, "x.cfg")


def test_a_line_that_is_nothing_is_refused_with_its_number() -> None:
    with pytest.raises(RequestError, match=r"x.cfg, line 3: 'hello' is neither"):
        parse_cfg("[net]\nwidth=3\nhello\n", "x.cfg")


@pytest.mark.parametrize("value", ["three", "1.5", ""])
def test_a_value_that_is_no_number_is_refused_with_its_place(value: str) -> None:
    section = parse_cfg(f"[net]\n[maxpool]\nsize={value}\n", "x.cfg")[1]
    with pytest.raises(RequestError, match=r"x.cfg, \[maxpool\] on line 2: size="):
        section.integer("size", 1)


def test_names_are_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "two.names"
    path.write_text("dining table\ndog \n\n\n")
    assert read_names(path) == ("dining table", "dog")
    path.write_text("\n")
    with pytest.raises(RequestError, match="no class names"):
        read_names(path)


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    for path, message in [
        (tmp_path / "binary", "not a text file"),
        (tmp_path / "absent", "does not exist"),
        (tmp_path, "is a folder"),
    ]:
        with pytest.raises(RequestError, match=message):
            read_text(path)
