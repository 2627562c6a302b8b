"""Test code, run apart from the program that it tests: the names of the program stand for calls into another box.

The right answers are in the test code, so they are here and never there. What comes back is plain data, or an object
that can only be asked for attributes and called: it never compares itself with anything.
"""

from __future__ import annotations

import os
import sys

from .runner import compile_program, forget_box, new_module
from .serve import MODULE, own_classes, raised
from .wire import Remote, decode, encode

TYPE_CHECKING = False  # importing typing would double the start of a box
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn

_ONLY_TREE = 0x400  # ast.PyCF_ONLY_AST, without the cost of importing ast


def check(setup: bytes, max_bytes: int, receive: Callable[[], list[bytes]], send: Callable[..., None]) -> NoReturn:
    """Run tests as they come, and say of each whether it was passed."""
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 0)
    os.dup2(devnull, 1)
    checker = Checker(max_bytes, receive, send)
    forget_box()
    while True:
        _, code = receive()
        try:
            checker.run(setup, code)
        except AssertionError as error:
            send(b"failed", *raised(error)[1:])
        except BaseException as error:  # noqa: BLE001 - whatever a test raises, it was not passed
            send(*raised(error))
        else:
            send(b"passed")


class Checker:
    """The side of the tests: their names, and the line to the program."""

    def __init__(self, max_bytes: int, receive: Callable[[], list[bytes]], send: Callable[..., None]) -> None:
        self.max_bytes, self.receive, self.send = max_bytes, receive, send
        self.classes: dict[str, type] = {}

    def run(self, setup: bytes, code: bytes) -> None:
        """Run one test in a namespace of its own."""
        names = new_module(MODULE)
        exec(compile_program(setup), names)  # noqa: S102 - this is the box
        self.classes = own_classes(names)
        for name, is_module in _missing(code, names):
            names[name] = __import__(name) if is_module else self.proxy(name)
        exec(compile_program(code), names)  # noqa: S102

    def ask(self, verb: str, target: Proxy, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Have the program's side do something; raise what it raised, and take over what it did to the arguments."""
        request, containers = encode(
            (verb, target, arguments, keywords), max_bytes=self.max_bytes, classes=self.classes
        )
        self.send(b"call", request)
        kind, *parts = self.receive()
        if kind == b"value":
            (result, _), _ = decode(parts[0], classes=self.classes, remote=self.proxy, known=containers)
            return result
        name, text = (part.decode("utf-8", "replace") for part in parts)
        raise _exception(name, text)

    def proxy(self, handle: int | str) -> Proxy:
        return Proxy(self, handle)


class Proxy(Remote):
    """A name or an object of the program, seen from a test."""

    __slots__ = ("checker",)
    checker: Checker

    def __init__(self, checker: Checker, handle: int | str) -> None:
        super().__init__(handle)
        object.__setattr__(self, "checker", checker)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.checker.ask("call", self, arguments, keywords)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.checker.ask("get", self, (name,), {})

    def __setattr__(self, name: str, value: Any) -> None:
        self.checker.ask("set", self, (name, value), {})


def _exception(name: str, text: str) -> Exception:
    """Return an exception that a name of the program's side stands for; never one that ends this process or a loop."""
    found = vars(sys.modules["builtins"]).get(name)
    try:
        error = found(text) if isinstance(found, type) and issubclass(found, Exception) else None
        if isinstance(error, StopIteration | StopAsyncIteration):  # to `all(map(...))` the rest would count as passed
            error = None
    except TypeError:
        error = None
    return error or RuntimeError(f"{name}: {text}")


def _missing(code: bytes, names: dict[str, Any]) -> list[tuple[str, bool]]:
    """Return the names that code takes from the program, and which of them are modules that it forgot to import.

    A builtin is never one of them, or a program could define `abs` or `all` and answer for the test. Only where the
    code uses a single name, and that is a builtin's, it must mean the program's.
    """
    used, as_module = _names(compile(code, "test.py", "exec", _ONLY_TREE, dont_inherit=True))
    builtins = vars(sys.modules["builtins"]).keys()
    wanted = used - names.keys() - builtins
    if not wanted and len(used) == 1:
        wanted = used - names.keys()
    return [(name, name in as_module and name in sys.stdlib_module_names) for name in wanted]


def _names(tree: Any) -> tuple[set[str], set[str]]:
    """Return the names that code uses, and those of them that it takes attributes of."""
    used, as_module = set(), set()
    for node in _nodes(tree):
        kind = type(node).__name__
        if kind == "Name":
            used.add(node.id)
        elif kind == "Attribute" and type(node.value).__name__ == "Name":
            as_module.add(node.value.id)
    return used, as_module


def _nodes(tree: Any) -> Iterator[Any]:
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        for field in node._fields:
            value = getattr(node, field, None)
            children = value if isinstance(value, list) else [value]
            pending.extend(child for child in children if hasattr(child, "_fields"))
