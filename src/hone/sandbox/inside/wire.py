"""Messages and plain data between a box and the process outside: a text of our own, safe to read from anyone.

A frame is four bytes of length and then parts of bytes. A value is lines: one for the root, then one block for each
container in an order where what is hashed comes before what holds it. Shared references and cycles survive, and nothing
recurses, so a linked list of any length is fine. Subclasses of plain types are flattened to the plain type; iterators
are read to their end; any other object becomes a handle that only its owner can resolve.

This module knows no process and no limit but those that it is given. It imports nothing but builtin modules.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would double the start of a box
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator
    from typing import Any
else:
    from _collections import deque

MAX_ITEMS = 1_000_000  # of one iterator that is read to its end
_LIST, _TUPLE, _SET, _FROZENSET, _DEQUE, _ITERATOR = "L", "T", "S", "F", "Q", "I"
_DICT, _OBJECT, _RANGE, _REMOTE, _LOCAL = "D", "O", "R", "H", "B"
_TYPES: dict[str, type] = {  # classes that a call may be given, as `isinstance` takes them
    plain.__name__: plain for plain in (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict)
}
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))


class WireError(Exception):
    """A message that breaks the format or a limit; the text says how."""


class Remote:
    """An object that lives on the other side, by the number or the name that its owner knows it by."""

    __slots__ = ("handle",)

    handle: int | str

    def __init__(self, handle: int | str) -> None:
        object.__setattr__(self, "handle", handle)


def pack(parts: list[bytes]) -> bytes:
    """Return a frame of some parts of bytes."""
    body = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return len(body).to_bytes(4, "big") + body


def unpack(body: bytes) -> list[bytes]:
    """Return the parts of a frame, given without its four bytes of length."""
    parts, place = [], 0
    while place < len(body):
        end = place + 4 + int.from_bytes(body[place : place + 4], "big")
        if end > len(body):
            raise WireError("a part is cut off")
        parts.append(body[place + 4 : end])
        place = end
    if not parts:
        raise WireError("an empty message")
    return parts


def _refuse(value: object) -> int:
    raise WireError(f"a {type(value).__name__} is not plain data")


def encode(
    root: object,
    *,
    max_bytes: int,
    classes: dict[str, type] | None = None,
    handle: Callable[[object], int] = _refuse,
    origins: dict[int, int] | None = None,
) -> tuple[bytes, list[object]]:
    """Return a value as text, and its containers by number; raise `WireError` above the limit.

    `classes` are those that both sides know by name; `handle` numbers an object that is not plain data; `origins` maps
    the id of each object that came from the other side to its number there, so that it is recognised.
    """
    encoder = _Encoder(max_bytes, classes or {}, handle, origins or {})
    return encoder.encode(root), encoder.containers


class _Encoder:
    def __init__(
        self, max_bytes: int, classes: dict[str, type], handle: Callable[[object], int], origins: dict[int, int]
    ) -> None:
        self.room, self.classes, self.handle, self.origins = max_bytes, classes, handle, origins
        self.numbers: dict[int, int] = {}
        self.containers: list[object] = []  # kept, since an id is only good while its object lives

    def encode(self, root: object) -> bytes:
        pending: list[tuple[object, list[str] | None]] = []
        blocks: list[str] = []
        visited: set[int] = set()
        head = self._value(root, pending)
        while pending:
            value, lines = pending.pop()
            if lines is not None:
                blocks.extend(lines)
            elif id(value) not in visited:
                visited.add(id(value))
                children: list[tuple[object, list[str] | None]] = []
                lines = self._block(value, children)
                pending.append((value, lines))
                pending.extend(children)
        return "\n".join([head, *blocks]).encode("utf-8", "surrogatepass")

    def _value(self, value: Any, pending: list[tuple[object, list[str] | None]]) -> str:
        """Return the line of a value; what is a container gets a number and is put off."""
        if value is None:
            line = "n"
        elif isinstance(value, int):
            line = ("t" if value else "f") if isinstance(value, bool) else "i" + format(int(value), "x")
        elif isinstance(value, str):
            text = str.__str__(value)
            line = "s" + (text.replace("\\", "\\\\").replace("\n", "\\n") if "\n" in text or "\\" in text else text)
        elif isinstance(value, float):
            line = "d" + float.__repr__(value)
        elif isinstance(value, complex):
            line = f"c{value.real!r},{value.imag!r}"
        elif isinstance(value, bytes | bytearray):
            line = "b" + bytes(value).hex()
        elif isinstance(value, type) and _TYPES.get(value.__name__) is value:
            line = "y" + value.__name__
        else:
            if id(value) not in self.numbers:
                self.numbers[id(value)] = len(self.numbers)
                self.containers.append(value)
            pending.append((value, None))
            line = f"r{self.numbers[id(value)]}"
        self.room -= len(line) + 1
        if self.room < 0:
            raise WireError("the data is too large")
        return line

    def _block(self, value: Any, pending: list[tuple[object, list[str] | None]]) -> list[str]:
        kind, items = self._contents(value)
        # Looked up while the items are made, so that those of an endless iterator meet the limit.
        lines = [self._value(item, pending) for item in items]
        origin = self.origins.get(id(value), -1)
        return [f"{kind}{self.numbers[id(value)]},{origin},{len(lines)}", *lines]

    def _contents(self, value: Any) -> tuple[str, Iterator[Any]]:
        for kind, plain in _PLAIN:
            if isinstance(value, plain):
                return kind, plain.__iter__(value)
        if isinstance(value, dict):
            return _DICT, (part for pair in dict.items(value) for part in pair)
        if isinstance(value, range):
            return _RANGE, iter((value.start, value.stop, value.step))
        if isinstance(value, Remote):
            return _LOCAL, iter((value.handle,))
        if isinstance(value, _VIEWS):
            return _LIST, iter(value)  # type: ignore[call-overload]
        if type(value).__name__ in self.classes:
            return _OBJECT, _attributes(value)
        if hasattr(type(value), "__next__"):
            return _ITERATOR, _bounded(value)
        return _REMOTE, iter((self.handle(value),))


_PLAIN: tuple[tuple[str, Any], ...] = (
    (_LIST, list), (_TUPLE, tuple), (_SET, set), (_FROZENSET, frozenset), (_DEQUE, deque),
)  # fmt: skip


def _attributes(value: Any) -> Iterator[Any]:
    yield type(value).__name__
    for name, attribute in vars(value).items() if hasattr(value, "__dict__") else ():
        yield from (name, attribute)
    for name in getattr(type(value), "__slots__", ()):
        if hasattr(value, name):
            yield from (name, getattr(value, name))


def _bounded(iterator: Iterator[Any]) -> Iterator[Any]:
    for count, item in enumerate(iterator):
        if count >= MAX_ITEMS:
            raise WireError("an iterator does not end")
        yield item


def decode(
    data: bytes,
    *,
    classes: dict[str, type] | None = None,
    remote: Callable[[int], object] = Remote,
    local: Callable[[int | str], object] | None = None,
    known: list[object] | None = None,
    as_json: bool = False,
) -> tuple[Any, dict[int, object]]:
    """Return the value, and every container in it by number; raise `WireError` where the text is not of `encode`.

    `known` are the containers of an earlier message: one that comes back is filled again, in place, and stays
    the same object. `local` resolves a handle that was given to the other side. `as_json` takes no sets and makes keys
    text, as JSON does: numbers can be chosen to collide in a hash table and stop the process that reads them.
    """
    try:
        return _Decoder(classes or {}, remote, local, dict(enumerate(known or ())), as_json).decode(data)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise WireError(f"not plain data: {type(error).__name__}") from error


class _Decoder:
    def __init__(
        self,
        classes: dict[str, type],
        remote: Callable[[int], object],
        local: Callable[[int | str], object] | None,
        known: dict[int, object],
        as_json: bool,
    ) -> None:
        self.classes, self.remote, self.local, self.known = classes, remote, local, known
        self.as_json = as_json
        self.table: dict[int, object] = {}

    def decode(self, data: bytes) -> tuple[Any, dict[int, object]]:
        lines = data.decode("utf-8", "surrogatepass").split("\n")
        blocks = list(_blocks(lines))
        if self.as_json and any(kind in (_SET, _FROZENSET) for kind, *_ in blocks):
            raise WireError("a set, which JSON does not have")
        for kind, number, origin, items in blocks:
            if kind in _SHELLS or kind == _OBJECT:
                self.table[number] = self._shell(kind, origin, items)
        for kind, number, _, items in blocks:
            if kind not in _SHELLS and kind != _OBJECT:
                self.table[number] = self._immutable(kind, [self._value(line) for line in items])
        for kind, number, _, items in blocks:
            if kind in _SHELLS or kind == _OBJECT:
                self._fill(self.table[number], [self._value(line) for line in items])
        return self._value(lines[0]), self.table

    def _value(self, line: str) -> Any:
        kind, text = line[0], line[1:]
        if kind == "r":
            return self.table[int(text)]
        if kind == "i":
            return int(text, 16)
        if kind == "s":
            return _unescape(text) if "\\" in text else text
        if kind == "d":
            return float(text)
        if kind == "c":
            real, imaginary = text.split(",")
            return complex(float(real), float(imaginary))
        if kind == "b":
            return bytes.fromhex(text)
        if kind == "y":
            return _TYPES[text]
        return {"n": None, "t": True, "f": False}[line]

    def _shell(self, kind: str, origin: int, items: list[str]) -> object:
        known = self.known.get(origin)
        if kind == _OBJECT:
            found = self.classes[self._value(items[0])]
            return known if type(known) is found else object.__new__(found)
        return known if type(known) is _SHELLS[kind] else _SHELLS[kind]()

    def _immutable(self, kind: str, items: list[Any]) -> object:
        if kind == _TUPLE:
            return tuple(items)
        if kind == _FROZENSET:
            return frozenset(items)
        if kind == _ITERATOR:
            return iter(items)
        if kind == _RANGE:
            return range(*items)
        (handle,) = items
        if kind == _REMOTE:
            return self.remote(handle)
        if kind == _LOCAL and self.local is not None:
            return self.local(handle)
        raise WireError(f"an unknown kind of block {kind!r}")

    def _fill(self, shell: Any, items: list[Any]) -> None:
        if isinstance(shell, list):
            shell[:] = items
        elif isinstance(shell, set):
            shell.clear()
            shell.update(items)
        elif isinstance(shell, deque):
            shell.clear()
            shell.extend(items)
        elif isinstance(shell, dict):
            keys = map(json_key, items[::2]) if self.as_json else items[::2]
            shell.clear()
            shell.update(zip(keys, items[1::2], strict=True))
        else:
            for name, attribute in zip(items[1::2], items[2::2], strict=True):
                if name.startswith("__") or callable(getattr(type(shell), name, None)):
                    raise WireError("an attribute that is not data")
                object.__setattr__(shell, name, attribute)


_SHELLS: dict[str, Callable[[], Any]] = {_LIST: list, _SET: set, _DICT: dict, _DEQUE: deque}


def json_key(key: Any) -> str:
    """Return a key of a mapping as JSON writes it."""
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    if not isinstance(key, str | int | float):
        raise WireError(f"a {type(key).__name__} as a key, which JSON does not have")
    return str(key)


def _blocks(lines: list[str]) -> Iterator[tuple[str, int, int, list[str]]]:
    place = 1
    while place < len(lines):
        number, origin, count = map(int, lines[place][1:].split(","))
        items = lines[place + 1 : place + 1 + count]
        if count < 0 or len(items) != count:
            raise WireError("a block is cut off")
        yield lines[place][0], number, origin, items
        place += 1 + count


def _unescape(text: str) -> str:
    return "\\".join(part.replace("\\n", "\n") for part in text.split("\\\\"))
