"""Codecs between two releases: what each side does with fields and values that only the other one knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import pytest

from cluster.lanes.dataclass_codec import RecordCodec, RowCodec, VersionMismatchError
from tests.cluster.engines import sent


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Size:
    width: int
    height: int = 1


@dataclass(frozen=True)
class Shape:
    """A class as the older release has it."""

    name: str
    size: Size | None = None
    colour: Colour | None = None
    parts: tuple[Size, ...] = ()


def newer() -> type[Any]:
    """The same class in the newer release: a field in between and one at the end."""

    @dataclass(frozen=True)
    class Shape:
        name: str
        size: Size | None = None
        weight: float = 0.5
        colour: Colour | None = None
        parts: tuple[Size, ...] = ()
        label: str = ""

    return Shape


FULL = Shape("box", Size(2, 3), Colour.RED, (Size(1), Size(4, 4)))


@pytest.mark.parametrize(
    ("shape", "row"),
    [
        (Shape("box"), ("box",)),
        (Shape("box", Size(2)), ("box", (2,))),
        (Shape("box", colour=Colour.RED), ("box", None, "red")),
        (FULL, ("box", (2, 3), "red", ((1,), (4, 4)))),
    ],
)
def test_a_row_has_no_trailing_defaults_and_comes_back(shape: Shape, row: tuple[Any, ...]) -> None:
    codec = RowCodec(Shape)
    assert codec.encode(shape) == sent(codec.encode(shape)) == row
    assert codec.encode_all([shape, shape]) == [row, row]
    assert codec.decode(row) == RowCodec(Shape, codec.schema).decode(row) == shape


def test_a_newer_reader_gives_its_own_defaults_to_what_an_older_writer_leaves_out() -> None:
    new, writer = newer(), RowCodec(Shape)
    reader = RowCodec(new, sent(writer.schema))
    assert reader.decode(writer.encode(FULL)) == new("box", Size(2, 3), 0.5, Colour.RED, (Size(1), Size(4, 4)), "")


def test_an_older_reader_ignores_the_fields_of_a_newer_writer() -> None:
    new = newer()
    writer = RowCodec(new)
    reader = RowCodec(Shape, sent(writer.schema))
    value = new("box", Size(2, 3), 7.5, Colour.RED, (Size(1), Size(4, 4)), "new")
    assert reader.decode(writer.encode(value)) == FULL
    assert reader.decode(writer.encode(new("box"))) == Shape("box")


def test_an_older_reader_ignores_what_comes_after_the_fields_it_knows() -> None:
    schema = {**RowCodec(Shape).schema, "Shape": ("name", "size", "colour", "parts", "label"), "Later": ("x",)}
    row = ("box", (2, 3, "deep"), "red", ((1,), (4, 4)), "new")
    assert RowCodec(Shape, {**schema, "Size": ("width", "height", "depth")}).decode(row) == FULL


def test_a_writer_without_a_field_that_the_reader_needs_is_refused() -> None:
    with pytest.raises(VersionMismatchError, match="Shape comes without name"):
        RowCodec(Shape, {"Shape": ("title", "size")})


def test_a_value_that_the_reader_does_not_know_is_refused() -> None:
    with pytest.raises(VersionMismatchError, match="Colour has no 'blue'"):
        RowCodec(Shape).decode(("box", None, "blue"))


@dataclass(frozen=True)
class Order:
    shape: Shape | str | tuple[int, ...]
    mode: Literal["slow", "quick"] = "slow"
    early: bool | Literal["never"] = False
    bias: Mapping[int, float] | None = None
    labels: tuple[tuple[str, int], ...] = ()


@pytest.mark.parametrize(
    ("order", "record"),
    [
        (Order("box"), {"shape": "box"}),
        (Order((1, 2)), {"shape": (1, 2)}),
        (Order(FULL, "quick", "never", {1: 2.0}), {"mode": "quick", "early": "never", "bias": {1: 2.0}}),
        (Order("box", labels=(("a", 1), ("b", 2))), {"labels": (("a", 1), ("b", 2))}),
        (Order(Shape("box"), early=True), {"shape": {"name": "box"}, "early": True}),
    ],
)
def test_a_record_names_the_fields_that_differ_from_their_defaults(order: Order, record: dict[str, Any]) -> None:
    codec = RecordCodec(Order)
    written = sent(codec.encode(order))
    assert written | record == written
    assert len(written) == len({"shape", *record})
    assert codec.decode(written) == order


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        ({"shape": "box", "speed": 3}, "Order has no speed here"),
        ({"shape": {"name": "box", "size": {"width": 1, "depth": 2}}}, "Size has no depth here"),
        ({"mode": "slow"}, "Order comes without shape"),
        ({"shape": {"name": "box", "colour": "blue"}}, "Colour has no 'blue' here"),
        ({"shape": "box", "mode": "instant"}, "'instant' is unknown here; known are 'slow', 'quick'"),
        ({"shape": "box", "early": "often"}, "'often' is unknown here"),
    ],
)
def test_a_record_that_cannot_be_honoured_is_refused(record: dict[str, Any], complaint: str) -> None:
    with pytest.raises(VersionMismatchError, match=complaint):
        RecordCodec(Order).decode(record)


@dataclass(frozen=True)
class Ambiguous:
    either: Shape | Size


@dataclass(frozen=True)
class Foreign:
    function: type


@pytest.mark.parametrize("kind", [Ambiguous, Foreign])
def test_a_class_that_cannot_be_sent_is_refused_when_its_codec_is_made(kind: type[Any]) -> None:
    with pytest.raises(TypeError, match="lane"):
        RecordCodec(kind)
