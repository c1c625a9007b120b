"""Darknet's cfg and names files (src/parser.c, src/option_list.c of pjreddie/darknet f6afaab)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data.errors import RequestError


@dataclass(frozen=True, slots=True)
class Section:
    """One section: its type without brackets, the line it begins on, and its options.

    Darknet removes all white space, and of a repeated key the first counts (option_find searches from the front).
    """

    type: str
    line: int
    options: Mapping[str, str]
    where: str

    def integer(self, key: str, default: int) -> int:
        """RequestError if the value is no whole number."""
        try:
            return int(self.options.get(key, default))
        except ValueError:
            raise self.error(f"{key}={self.options[key]} is not a whole number") from None

    def integers(self, key: str) -> list[int]:
        """A comma-separated list; empty without the key. RequestError if a value is no whole number."""
        try:
            return [int(value) for value in self.options.get(key, "").split(",") if value]
        except ValueError:
            raise self.error(f"{key}={self.options[key]} is not a list of whole numbers") from None

    def floats(self, key: str) -> list[float]:
        """A comma-separated list; empty without the key. RequestError if a value is no number."""
        try:
            return [float(value) for value in self.options.get(key, "").split(",") if value]
        except ValueError:
            raise self.error(f"{key}={self.options[key]} is not a list of numbers") from None

    def error(self, message: str) -> RequestError:
        """The message with the file, section and line in front."""
        return RequestError(f"{self.where}, [{self.type}] on line {self.line}: {message}.")


def read_text(path: Path) -> str:
    """A cfg or names file as text. RequestError if it is absent or not text; other OSErrors pass through."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RequestError(f"{path} does not exist.") from None
    except IsADirectoryError:
        raise RequestError(f"{path} is a folder, not a file.") from None
    except UnicodeDecodeError:
        raise RequestError(f"{path} is not a text file.") from None


def parse_cfg(text: str, where: str) -> list[Section]:
    """The sections of a cfg in order; `where` names the file in errors.

    Comments begin with # or ;, on a line of their own or behind a value. RequestError for a line that is neither a
    section, an option nor a comment, or if the first section is not [net].
    """
    sections: list[tuple[str, int, dict[str, str]]] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = "".join(raw.split("#")[0].split(";")[0].split())
        if not line:
            continue
        if line[0] == "[" and line[-1] == "]":
            sections.append((line[1:-1], number, {}))
            continue
        key, equals, value = line.partition("=")
        if not equals or not key or not sections:
            raise RequestError(
                f"{where}, line {number}: {raw.strip()[:80]!r} is neither a [section], a key=value nor a comment."
            )
        sections[-1][2].setdefault(key, value)
    if not sections or sections[0][0] not in ("net", "network"):
        raise RequestError(f"{where} is not a Darknet cfg: its first section must be [net].")
    return [Section(kind, line, options, where) for kind, line, options in sections]


def read_names(path: Path) -> tuple[str, ...]:
    """The class names of a names file, one a line; blank lines at the end are not names.

    RequestError if the file is absent, not text or empty.
    """
    names = tuple(line.strip() for line in read_text(path).rstrip().splitlines())
    if not names:
        raise RequestError(f"{path} has no class names; expected one a line.")
    return names
