"""One request to a server that may be slow, hostile or gone: by a deadline, of bounded size, and to no other place.

A status and bytes come back, whatever they are, or one of three reasons why nothing did. Knows no API, repeats nothing.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cache, partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any, Self
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPErrorProcessor, HTTPHandler, HTTPSHandler, ProxyHandler, Request, build_opener

_ADDRESS = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[!-~]*)?")
LONGEST_CONNECT = 30.0  # seconds; a machine that is there takes one
LONGEST_LINE = 200  # characters of what a server says


class NoResponse(Exception):
    """Nothing came back, and why in a few words."""


class Unreachable(NoResponse):
    """There was no connection."""


class Late(NoResponse):
    """The deadline passed."""


class Line:
    """The connection of a request under way, which another thread may cut."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.is_cut = False

    def cut(self) -> None:
        """Have the request end now, with `NoResponse`, or as soon as it has a connection."""
        with self._lock:
            self.is_cut = True
            self._shut()

    def hold(self, connection: socket.socket) -> None:
        """Take a descriptor of one's own for the connection: TLS takes over the other."""
        with self._lock:
            self._socket = connection.dup()
            if self.is_cut:
                self._shut()

    def let_go(self) -> None:
        with self._lock:
            if self._socket:
                self._socket.close()
            self._socket = None

    def _shut(self) -> None:
        if self._socket:
            with suppress(OSError):  # the other side was first
                self._socket.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What came back; `error` where the status is none of success."""

    status: int
    reason: str
    body: bytes
    headers: Mapping[str, str] = field(repr=False)  # by name in small letters

    @property
    def error(self) -> bool:
        return not 200 <= self.status < 300

    def said(self) -> str:
        """Return the beginning of the body as a short line that is safe to print."""
        return line(self.body[: 4 * LONGEST_LINE].decode("utf-8", "replace"))

    def retry_after(self) -> float:
        """Return after how many seconds the server wants to be asked again; 0 where it does not say."""
        wanted = self.headers.get("retry-after", "").strip()
        if re.fullmatch(r"[0-9]{1,9}", wanted):
            return float(wanted)
        try:
            return max(0.0, parsedate_to_datetime(wanted).timestamp() - time.time())
        except (ValueError, OverflowError):
            return 0.0


def is_address(url: str) -> bool:
    """Say whether a request can be sent to `url`; one that carries a user's name and password is none."""
    try:
        parts = urlsplit(url)
        return bool(_ADDRESS.fullmatch(url) and parts.port != 0 and (parts.hostname or "").encode("idna"))
    except ValueError:  # no port, or no name of a machine
        return False


def line(text: object) -> str:
    """Return what a server said as a short line that is safe to print."""
    return "".join(c for c in " ".join(str(text).split()) if c.isprintable())[:LONGEST_LINE]


def send(
    url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, *, timeout: float, max_bytes: int,
    through: Line | None = None,
) -> Response:  # fmt: skip
    """Ask once, by POST where there is a body; all of the response is there within `timeout` seconds, or it is `Late`.

    Redirects are not followed: they would carry a key elsewhere. A server of this machine is asked without a proxy.
    """
    through = through or Line()
    late = threading.Event()

    def hang_up() -> None:
        late.set()
        through.cut()

    # A read has a limit too, but a server that sends a byte now and then meets it for ever.
    deadline = threading.Timer(timeout, hang_up)
    deadline.daemon = True
    deadline.start()
    try:
        response = _ask(Request(url, body, dict(headers or {})), timeout, max_bytes, through)
    except URLError as error:
        if late.is_set() or isinstance(error.reason, TimeoutError):
            raise Late(f"none within {timeout:g} s") from error
        if isinstance(error.reason, BrokenPipeError | ConnectionResetError):
            raise NoResponse(line(error.reason)) from error
        raise Unreachable(line(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        if late.is_set() or isinstance(error, TimeoutError):
            raise Late(f"none within {timeout:g} s") from error
        raise NoResponse(f"the connection broke ({type(error).__name__})") from error
    finally:
        deadline.cancel()
        through.let_go()
    if late.is_set():  # a body that was cut reads like one that ended
        raise Late(f"none within {timeout:g} s")
    return response


def _ask(request: Request, timeout: float, max_bytes: int, through: Line) -> Response:
    proxies = [ProxyHandler({})] if _on_this_machine(request.full_url) else []
    opener = build_opener(_Plain(through), _Secure(through), _AsItIs, *proxies)
    with closing(opener.open(request, timeout=timeout)) as response:
        body = bytearray()
        while part := response.read1(2**16):
            body += part
            if len(body) > max_bytes:
                raise NoResponse(f"longer than {max_bytes} bytes")
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Response(status=response.status, reason=line(response.reason), body=bytes(body), headers=headers)


def _on_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


class _AsItIs(HTTPErrorProcessor):
    """Hands over responses of every status: none raises, no redirect is followed."""

    def http_response(self, request: Request, response: HTTPResponse) -> HTTPResponse:
        return response

    https_response = http_response


class _Held(HTTPConnection):
    """Tells the line of its socket before anything is sent, a TLS greeting included."""

    through: Line

    @classmethod
    def on(cls, through: Line, host: str, **settings: Any) -> Self:
        connection = cls(host, **settings)
        connection.through = through
        return connection

    def connect(self) -> None:
        whole = self.timeout
        self.timeout = LONGEST_CONNECT if whole is None else min(whole, LONGEST_CONNECT)
        super().connect()
        self.sock.settimeout(whole)
        self.through.hold(self.sock)


class _HeldSecure(HTTPSConnection, _Held):
    """The same with TLS: its `connect` calls that of `_Held` first."""


class _Plain(HTTPHandler):
    def __init__(self, through: Line) -> None:
        super().__init__()
        self.through = through

    def http_open(self, request: Request) -> HTTPResponse:
        return self.do_open(partial(_Held.on, self.through), request)


class _Secure(HTTPSHandler):
    def __init__(self, through: Line) -> None:
        super().__init__(context=_trusted())
        self.through = through

    def https_open(self, request: Request) -> HTTPResponse:
        return self.do_open(partial(_HeldSecure.on, self.through), request, context=_trusted())


@cache
def _trusted() -> ssl.SSLContext:
    """Return what checks certificates; made once, since it reads all that this machine trusts."""
    return ssl.create_default_context()
