"""The group attribute `distill`: what made a store, as typed values with a strict JSON form (contracts.md 1)."""

import dataclasses
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from data.errors import RequestError

SCHEMA = 1
TEACHER_STRIDE = 32


@dataclass(frozen=True, slots=True)
class TeacherAttributes:
    """Who labelled. anchors: (width, height) in cells, in cfg order. cfg_sha256: None for a checkpoint without cfg."""

    name: str
    weights_sha256: str
    cfg_sha256: str | None
    anchors: tuple[tuple[float, float], ...]
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InputAttributes:
    """How a picture became the network's input. height, width: pixels. fill: padding, 0 to 1. channels: their order."""

    height: int
    width: int
    resize: Literal["letterbox", "stretch"]
    interpolation: str
    fill: float
    channels: str


FmNmsMode = Literal["local-max", "greedy", "overlap", "off"]


@dataclass(frozen=True, slots=True)
class FmNmsAttributes:
    """contracts.md 2. window: cells, odd."""

    mode: FmNmsMode
    window: int
    min_objectness: float


@dataclass(frozen=True, slots=True)
class RunAttributes:
    """What stored bits depend on besides the teacher and the picture; every `auto` is already resolved."""

    device: str
    precision: str
    batch_size: int
    threads: int
    memory_format: str
    codec_pipeline: str
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StoreAttributes:
    """The group attribute `distill`, whole. manifest_sha256: of the bytes of `manifest.jsonl`."""

    shard_size: int
    manifest_sha256: str
    teacher: TeacherAttributes
    input: InputAttributes
    fm_nms: FmNmsAttributes
    run: RunAttributes
    schema: int = SCHEMA

    @property
    def entries(self) -> int:
        """Values per anchor slot: x, y, w, h, objectness and the classes."""
        return 5 + len(self.teacher.classes)

    @property
    def label_shape(self) -> tuple[int, int, int, int]:
        """[A, 5+K, H, W] of one picture's soft labels."""
        grid = self.input.height // TEACHER_STRIDE, self.input.width // TEACHER_STRIDE
        return (len(self.teacher.anchors), self.entries, *grid)


def attributes_to_json(attributes: StoreAttributes) -> dict[str, Any]:
    """JSON value of the attribute `distill`; `attributes_from_json` is its inverse."""
    value: dict[str, Any] = dataclasses.asdict(attributes)
    return value


def attributes_from_json(value: Any) -> StoreAttributes:
    """Inverse of `attributes_to_json`. Raises ValueError for another schema, a missing, unknown or mistyped entry."""
    if isinstance(value, dict) and value.get("schema") != SCHEMA:
        raise ValueError(f"schema {value.get('schema')!r} where {SCHEMA} was expected")
    attributes: StoreAttributes = _typed(StoreAttributes, value, "distill")
    return attributes


def require_same_labels(existing: StoreAttributes, wanted: StoreAttributes, store: str) -> None:
    """Refuse to go on with a store whose labels mean something else.

    Compares shard size, teacher, input and FM-NMS; `run` is not compared, a resumed store keeps its own.
    The pictures are compared by `manifest.require_same_pictures`. Raises RequestError naming every differing entry.
    """
    old, new = _flat(attributes_to_json(existing)), _flat(attributes_to_json(wanted))
    compared = [key for key in sorted({*old, *new}) if not key.startswith(("run.", "manifest_sha256"))]
    changes = [
        f"{key} {_short(old.get(key))} there, {_short(new.get(key))} asked"
        for key in compared
        if old.get(key) != new.get(key)
    ]
    if changes:
        raise RequestError(
            f"{store} was made with other settings: {'; '.join(changes)}. "
            "Use those settings, or label into a new store."
        )


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        flat |= _flat(entry, f"{prefix}{key}.") if isinstance(entry, dict) else {f"{prefix}{key}": entry}
    return flat


def _short(value: Any) -> str:
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _typed(kind: Any, value: Any, where: str) -> Any:
    """`value` as `kind`, or ValueError: no conversion but that of a whole number to the float it is."""
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        if not isinstance(value, dict) or value.keys() != hints.keys():
            raise ValueError(f"{where} must have exactly the entries {', '.join(hints)}")
        assert isinstance(kind, type)
        return kind(**{name: _typed(hint, value[name], f"{where}.{name}") for name, hint in hints.items()})
    if origin is Literal:
        if value in arguments:
            return value
    elif origin in (Union, types.UnionType):
        return None if value is None else _typed(arguments[0], value, where)
    elif origin is tuple:
        variadic = arguments[-1] is Ellipsis
        if isinstance(value, list) and (variadic or len(value) == len(arguments)):
            kinds = [arguments[0]] * len(value) if variadic else arguments
            return tuple(_typed(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    elif origin is Mapping:
        if isinstance(value, dict):
            return {_typed(str, k, where): _typed(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    elif kind is float and type(value) in (int, float):
        return float(value)
    elif type(value) is kind:
        return value
    raise ValueError(f"{where} is {value!r}, not of type {kind}")
