"""LiveCodeBench's release format: packed private tests, starter code, and windows of contest dates.

The private tests are base64 of zlib of a pickle of one text. A pickle is a program that can call anything, so it is
never given to `pickle`: a reader of its own takes text constants and refuses every other instruction by name. What is
unpacked is bounded. The module does not know what a test means.
"""

from __future__ import annotations

import base64
import binascii
import pickletools
import zlib
from datetime import date, datetime
from typing import Any, NamedTuple

from hone.tasks.rows import Refused, from_json, kind_of
from hone.types import HoneError

# The largest tests of a problem of the release are some tens of megabytes; 1 MB of zeros unpacks to 1,000.
MAX_UNPACKED_BYTES = 256_000_000

# What LiveCodeBench asks of DeepSeek-R1. {starter} is one of the two texts below.
PROMPT = (
    "You will be given a question (problem specification) and will generate a correct Python program that matches the "
    "specification and passes all tests.\n\nQuestion: {question}\n\n{starter}"
)
_WITH_STARTER = (
    "You will use the following starter code to write the solution to the problem and enclose your code within "
    "delimiters.\n```python\n{}\n```"
)
_WITHOUT_STARTER = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample "
    "inputs). Enclose your code within delimiters as follows. Ensure that when the python program runs, it reads the "
    "inputs, runs the algorithm and writes output to STDOUT.\n```python\n# YOUR CODE HERE\n```"
)


def asked_form(starter_code: str) -> str:
    """Return how the program is asked for: to continue the starter code, or to read and print."""
    return _WITH_STARTER.format(starter_code) if starter_code.strip() else _WITHOUT_STARTER


def unpack_tests(packed: str) -> list[Any]:
    """Return the tests of a packed field, or of one that holds plain JSON; refuse anything else."""
    text = packed if packed.lstrip().startswith("[") else _unpickled_text(_decompressed(packed))
    tests = from_json(text)
    if not isinstance(tests, list):
        raise Refused(f"the private tests are {kind_of(tests)}, not a list")
    return tests


def _decompressed(packed: str) -> bytes:
    try:
        compressed = base64.b64decode("".join(packed.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(f"the private tests are not base64: {error}") from error
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(compressed, MAX_UNPACKED_BYTES + 1)
    except zlib.error as error:
        raise Refused(f"the private tests are not zlib data: {error}") from error
    if len(data) > MAX_UNPACKED_BYTES:
        raise Refused(f"the private tests unpack to more than {MAX_UNPACKED_BYTES:,} bytes")
    if not unpacker.eof:
        raise Refused("the private tests are cut off: their zlib data has no end")
    return data


# Instructions that push a text: how many bytes say its length. Protocols 1 to 5; protocol 0 writes a line.
_TEXTS = {b"\x8c": 1, b"X": 4, b"\x8d": 8}
# Instructions that a pickled text comes with and that do nothing to it: the bytes of their argument.
_IDLE = {b"\x80": 1, b"\x95": 8, b"\x94": 0, b"q": 1, b"r": 4}
_LINE, _PUT, _STOP = b"V", b"p", b"."
_NAMES = {opcode.code.encode("latin-1"): opcode.name for opcode in pickletools.opcodes}


def _unpickled_text(data: bytes) -> str:
    """Return the one text of a pickle that holds a text and nothing else."""
    texts: list[str] = []
    position = 0

    def take(count: int) -> bytes:
        nonlocal position
        position += count
        if position > len(data):
            raise Refused("the pickle of the private tests is cut off")
        return data[position - count : position]

    def take_line() -> bytes:
        end = data.find(b"\n", position)
        return take((end if end >= 0 else len(data)) + 1 - position)[:-1]

    while (code := take(1)) != _STOP:
        try:
            if code in _TEXTS:
                length = int.from_bytes(take(_TEXTS[code]), "little")
                texts.append(take(length).decode("utf-8", "surrogatepass"))
            elif code == _LINE:
                texts.append(take_line().decode("raw-unicode-escape"))
            elif code == _PUT:
                take_line()
            elif code in _IDLE:
                take(_IDLE[code])
            else:
                name = _NAMES.get(code, f"the byte {code[0]:#04x}")
                raise Refused(f"the pickle of the private tests holds {name}; only a text is read, and nothing is run")
        except UnicodeDecodeError as error:
            raise Refused(f"the pickle of the private tests is not UTF-8: {error.reason}") from error
    if len(texts) != 1 or position != len(data):
        raise Refused("the pickle of the private tests is not one text")
    return texts[0]


class Window(NamedTuple):
    """Days, both included; None is open."""

    since: date | None = None
    until: date | None = None

    @classmethod
    def of(cls, since: str | None, until: str | None) -> Window:
        """Make a window of dates as people write them, `2024-08-01` or `2024-08` (the whole month counts)."""
        window = cls(_first_day(since) if since else None, _last_day(until) if until else None)
        if window.since and window.until and window.since > window.until:
            raise HoneError(f"the window from {window.since} to {window.until} holds no day")
        return window

    def holds(self, value: Any) -> bool:
        """Say whether a row's date is in the window; refuse what is no date."""
        day = _day(value)
        return not (self.since and day < self.since) and not (self.until and day > self.until)


def _day(value: Any) -> date:
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    try:
        return datetime.fromisoformat(value.strip()).date()
    except (AttributeError, ValueError) as error:
        shown = repr(value[:40]) if isinstance(value, str) else kind_of(value)
        raise Refused(f"the date is {shown}, not like 2024-08-01") from error


def _first_day(text: str) -> date:
    try:
        return date.fromisoformat(f"{text}-01" if text.count("-") == 1 else text)
    except ValueError as error:
        raise HoneError(f"{text!r} is no date; write it as 2024-08-01 or 2024-08") from error


def _last_day(text: str) -> date:
    day = _first_day(text)
    if text.count("-") > 1:
        return day
    following = day.replace(year=day.year + day.month // 12, month=day.month % 12 + 1)
    return date.fromordinal(following.toordinal() - 1)
