"""A program whose functions are called from outside: it loads, then answers one request after the other.

A request names a function, or an object that an earlier answer handed out, and what to do with it. Answers are plain
data. Nothing here judges them, and a program that takes this process over can send nothing but other answers.
"""

from __future__ import annotations

import os

from .runner import compile_program, forget_box, new_module
from .wire import WireError, decode, encode

TYPE_CHECKING = False  # importing typing would double the start of a box
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

MODULE = "program"  # not __main__: what a program does only as a script is not wanted here
_MUTABLE = (list, dict, set)


def serve_calls(
    setup: bytes, source: bytes, max_bytes: int, receive: Callable[[], list[bytes]], send: Callable[..., None]
) -> NoReturn:
    """Load the setup and the program, then answer requests for ever; what they raise is an answer as well."""
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 0)
    os.dup2(devnull, 1)
    server = Server(max_bytes)
    reply: tuple[bytes, ...]
    try:
        server.load(setup, source)
        reply = (b"loaded",)
    except BaseException as error:  # noqa: BLE001 - whatever a program raises is its answer
        reply = raised(error)
    while True:
        send(*reply)
        kind, request = receive()
        try:
            reply = (b"value", server.call(request) if kind == b"function" else server.answer(request))
        except BaseException as error:  # noqa: BLE001 - as above
            reply = raised(error)


def raised(error: BaseException) -> tuple[bytes, bytes, bytes]:
    """Return an exception as a message: the name of its nearest builtin type, and its text."""
    builtin = next(kind for kind in type(error).__mro__ if kind.__module__ == "builtins")
    try:
        text = str(error) if builtin is type(error) else f"{type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001 - __str__ is the program's
        text = "?"
    return b"raised", builtin.__name__.encode(), text[:500].encode("utf-8", "replace")


class Server:
    """The loaded program and the objects of it that the other side holds."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.names: dict[str, Any] = {}
        self.classes: dict[str, type] = {}
        self.handed_out: list[object] = []

    def load(self, setup: bytes, source: bytes) -> None:
        forget_box()
        self.names = new_module(MODULE)
        exec(compile_program(setup), self.names)  # noqa: S102 - this is the box
        shared = own_classes(self.names)
        exec(compile_program(source), self.names)  # noqa: S102
        current = {name: self.names.get(name) for name in shared}
        self.classes = {name: kind for name, kind in current.items() if isinstance(kind, type)}

    def call(self, request: bytes) -> bytes:
        """Call the function that a request names; return its result."""
        (name, arguments), _ = decode(request)
        data, _ = encode(self._find(name)(*arguments), max_bytes=self.max_bytes + len(request), handle=self._hand_out)
        return data

    def answer(self, request: bytes) -> bytes:
        """Do what a request asks for; return the result, and what became of the arguments."""
        (verb, target, arguments, keywords), containers = decode(request, classes=self.classes, local=self._find)
        result: object = None
        if verb == "call":
            result = target(*arguments, **keywords)
        elif verb == "get":
            result = getattr(target, *arguments)
        elif verb == "set":
            setattr(target, *arguments)
        changed = {number: value for number, value in containers.items() if self._changes(value)}
        origins = {id(value): number for number, value in changed.items()}
        data, _ = encode(
            (result, list(changed.values())),
            max_bytes=self.max_bytes + len(request), classes=self.classes, handle=self._hand_out, origins=origins,
        )  # fmt: skip
        return data

    def _changes(self, value: object) -> bool:
        return isinstance(value, _MUTABLE) or type(value).__name__ in self.classes

    def _find(self, handle: int | str) -> Any:
        """Return what was handed out, or what a dotted name stands for, a method on a fresh instance of its class."""
        if isinstance(handle, int):
            return self.handed_out[handle]
        first, *rest = handle.split(".")
        if first not in self.names:
            raise NameError(f"the program does not define {first}")
        found = self.names[first]
        for name in rest:
            found = getattr(found() if isinstance(found, type) else found, name)
        return found

    def _hand_out(self, value: object) -> int:
        if len(self.handed_out) >= 100_000:
            raise WireError("too many objects that are not plain data")
        self.handed_out.append(value)
        return len(self.handed_out) - 1


def own_classes(names: dict[str, Any]) -> dict[str, type]:
    """Return the classes that the code run in a namespace defined itself, by name."""
    own = names["__name__"]
    return {name: kind for name, kind in names.items() if isinstance(kind, type) and kind.__module__ == own}
