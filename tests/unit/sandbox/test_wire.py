"""Plain data survives the way out of a box, whatever it is; what is not plain data, or no message, does not."""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.sandbox.inside.wire import Remote, WireError, decode, encode, pack, unpack

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False)
    | st.text(st.characters(blacklist_categories=())) | st.binary()
)  # fmt: skip
HASHABLE = st.recursive(SCALARS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=6)
VALUES = st.recursive(
    HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner) | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.sets(HASHABLE, max_size=3)
    ),
    max_leaves=12,
)  # fmt: skip


def there(value: object, **options: Any) -> Any:
    return decode(encode(value, max_bytes=1 << 20)[0], **options)[0]


@given(VALUES)
def test_plain_data_survives(value: object) -> None:
    found = there(value)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("plain", [int, str, list, dict, frozenset])
def test_a_plain_type_survives_and_any_other_does_not(plain: type) -> None:
    assert there([plain, 1]) == [plain, 1]
    impostor = type(plain.__name__, (plain,), {})
    with pytest.raises(WireError):
        encode([impostor], max_bytes=1 << 20)
    with pytest.raises(WireError):
        decode(b"yobject")


def test_a_large_whole_number_survives() -> None:
    assert there(-(7**20_000)) == -(7**20_000)


def test_an_attribute_does_not_replace_a_method() -> None:
    class Node:
        def same(self, other: object) -> bool:
            return self is other

    node = Node()
    vars(node)["same"] = "a name of the other side"
    with pytest.raises(WireError):
        decode(encode(node, max_bytes=1 << 20, classes={"Node": Node})[0], classes={"Node": Node})


def test_shared_references_and_cycles_survive() -> None:
    inner = [1]
    outer: list[Any] = [inner, inner, (inner,)]
    outer.append(outer)
    found = there(outer)
    assert found[0] is found[1]
    assert found[2][0] is found[0]
    assert found[3] is found


def test_depth_is_no_problem() -> None:
    nested: list[Any] = []
    for _ in range(20_000):
        nested = [nested]
    found, depth = there(nested), 0
    while found:
        found, depth = found[0], depth + 1
    assert depth == 20_000


def test_subclasses_are_flattened() -> None:
    class Liar(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    class Text(str):
        __slots__ = ()

    class Level(IntEnum):
        LOW = 1

    values = [Liar(7), Text("a"), Level.LOW, Counter("aa"), True]
    assert [type(value) for value in there(values)] == [int, str, int, dict, bool]
    assert there(Liar(7)) != 8


def test_iterators_are_read_and_ranges_stay() -> None:
    assert list(there(n * n for n in range(3))) == [0, 1, 4]
    assert there(range(1, 9, 2)) == range(1, 9, 2)
    assert there(deque([1, 2])) == deque([1, 2])
    assert there({"a": 1}.keys()) == ["a"]
    with pytest.raises(WireError, match="too large"):
        encode(iter(int, 1), max_bytes=10_000)


class Node:
    def __init__(self, value: int, after: Node | None = None) -> None:
        self.value, self.after = value, after


def test_objects_of_known_classes_cross_as_their_attributes() -> None:
    head = None
    for value in range(30_000):
        head = Node(value, head)
    data, _ = encode(head, max_bytes=1 << 22, classes={"Node": Node})
    found, _ = decode(data, classes={"Node": Node})
    assert isinstance(found, Node)
    assert (found.value, found.after.value) == (29_999, 29_998)
    with pytest.raises(WireError, match="a Node is not plain data"):
        encode(head, max_bytes=1 << 22)
    with pytest.raises(WireError):
        decode(data)


def test_a_hostile_attribute_is_refused() -> None:
    data = b"r0\nO0,-1,3\nsNode\ns__class__\ni1"
    with pytest.raises(WireError, match="not data"):
        decode(data, classes={"Node": Node})


def test_arguments_are_changed_in_place() -> None:
    ours: list[Any] = [3, 1, 2]
    data, containers = encode((ours, "x"), max_bytes=100)
    (theirs, _), table = decode(data)
    theirs.sort()
    changed = {number: value for number, value in table.items() if isinstance(value, list)}
    reply, _ = encode((None, theirs), max_bytes=100, origins={id(value): number for number, value in changed.items()})
    (_, found), _ = decode(reply, known=containers)
    assert found is ours
    assert ours == [1, 2, 3]


def test_handles_go_out_and_come_back() -> None:
    owned: list[object] = []

    def hand_out(value: object) -> int:
        owned.append(value)
        return len(owned) - 1

    thing = object()
    data, _ = encode([thing], max_bytes=100, handle=hand_out)
    (remote,), _ = decode(data)
    assert isinstance(remote, Remote)
    back, _ = encode(remote, max_bytes=100)
    assert decode(back, local=lambda handle: owned[int(handle)])[0] is thing
    with pytest.raises(WireError):
        decode(back)


@given(st.binary(max_size=60) | st.text("rinsdbcLTSFDOHBQIR0123456789,-.\n", max_size=60).map(str.encode))
def test_garbage_is_a_wire_error(data: bytes) -> None:
    with contextlib.suppress(WireError):
        decode(data)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5))
def test_frames_survive(parts: list[bytes]) -> None:
    assert unpack(pack(parts)[4:]) == parts


@pytest.mark.parametrize("body", [b"", b"\0", b"\0\0\0\5abc", b"\xff\xff\xff\xff"])
def test_a_broken_frame_is_a_wire_error(body: bytes) -> None:
    with pytest.raises(WireError):
        unpack(body)
