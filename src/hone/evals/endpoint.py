"""Outputs from a model behind an OpenAI-compatible endpoint, with many requests in flight.

What waiting may mend (a broken connection, a server that is busy or fails, garbage) is asked for again; what it cannot
ends the run in one line that repeats the server's words. The outputs that have been handed over by then are the
caller's, who asks for the rest another time. What the server says is checked before it counts as an output: a verdict
on half an answer, or on an error message, would pass for the model's. The module does not know what a problem is.
"""

from __future__ import annotations

import json
import math
import queue
import random
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal, NamedTuple, NoReturn, TypeVar
from urllib.parse import urlsplit

from hone.evals.outputs import Decoding, Output, Source, Wanted
from hone.http import Late, Line, NoResponse, Response, Unreachable, is_address, line, send
from hone.types import HoneError, RunError

MAX_BYTES = 16 * 2**20  # of a response: an output of 128,000 tokens, every character escaped, has 4
MAX_CONCURRENCY = 1024
LONGEST_WAIT = 60.0  # seconds between two tries
MOST_QUOTED = 80  # characters of a response that is no output
_CHAT = "/chat/completions"
_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_AGAIN = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
_MENDS: dict[int, str] = {
    HTTPStatus.BAD_REQUEST: "where it is the length that it refuses, lower --max-tokens",
    HTTPStatus.UNAUTHORIZED: "give it a key that it accepts",
    HTTPStatus.FORBIDDEN: "give it a key that it accepts",
    HTTPStatus.NOT_FOUND: "name a model that it has, or correct the address (.../v1)",
    HTTPStatus.METHOD_NOT_ALLOWED: "correct the address (.../v1)",
}
_MEND = "run it again to go on"
_MEND_BUSY = "ask for fewer outputs at a time"
_Read = TypeVar("_Read")


class Endpoint(Source):
    """A model behind `url`, which may end in `/v1` or in `/v1/chat/completions`, or do without.

    `model` may be left out where the server has one. `concurrency` requests are in flight; one that is not answered
    whole within `timeout` seconds has failed, and is sent `tries` times at most, after about `backoff` seconds, then
    twice as many, and so on. To be turned away while the server is busy with the other requests is no failure.
    """

    def __init__(
        self, url: str, *, model: str | None = None, api_key: str | None = None, concurrency: int = 64,
        timeout: float = 600.0, tries: int = 6, backoff: float = 1.0,
    ) -> None:  # fmt: skip
        if not 1 <= concurrency <= MAX_CONCURRENCY:
            raise HoneError(f"{concurrency} requests at a time: give a number from 1 to {MAX_CONCURRENCY}")
        if not (math.isfinite(timeout) and timeout > 0 and tries >= 1):
            raise HoneError(f"timeout = {timeout:g} s, tries = {tries}: both must be more than 0")
        self.base = _base(url)
        self._headers = {"Content-Type": "application/json"} | _authorization(api_key)
        self._key = self._headers.get("Authorization", "").removeprefix("Bearer ")
        self.concurrency, self.timeout, self.tries, self.backoff = concurrency, timeout, tries, backoff
        self.name = f"endpoint {self.base}"
        self.model = self._only_model() if model is None else model
        self.model_hash = ""  # a server does not tell

    def generate(self, wanted: Sequence[Wanted], decoding: Decoding) -> Generator[Output]:
        """Yield the outputs as they finish, in any order; at most `concurrency` are under way or wait to be taken.

        Closing the iterator, or an interrupt, hangs up on the requests in flight. Raise HoneError for what the server
        refuses, RunError for what does not come in `tries` tries, or where the server seems to hang.
        """
        if decoding.template != "chat":
            raise HoneError(
                f"{self.name}: an endpoint applies its own chat template, so template = {decoding.template!r} cannot "
                "be asked of it; evaluate the model's folder, or leave template = chat"
            )
        return self._outputs(wanted, decoding)

    def _outputs(self, wanted: Sequence[Wanted], decoding: Decoding) -> Generator[Output]:
        num_workers = min(self.concurrency, len(wanted))
        run = _Run(todo=iter(wanted), room=threading.Semaphore(num_workers), num_workers=num_workers)
        try:
            for number in range(num_workers):
                work = threading.Thread(target=self._work, args=(run, decoding), name=f"request {number}", daemon=True)
                work.start()
            running = num_workers
            while running:
                match run.results.get():
                    case Output() as output:
                        run.room.release()
                        yield output
                    case HoneError() as error:
                        yield from run.finished()
                        raise error
                    case None:
                        running -= 1
        finally:
            run.stop()
        if run.num_answered != len(wanted):  # a thread died; Python has printed why
            raise RunError(f"{self.name}: only {run.num_answered} of {len(wanted)} outputs came: a fault of hone")

    def _work(self, run: _Run, decoding: Decoding) -> None:
        """Ask for one output after another while there is room for it; what comes, or an error, goes to `results`."""
        try:
            while wanted := run.next():
                completion = self._ask(run, wanted, decoding)
                if completion is None:
                    return
                output = Output(
                    problem_id=wanted.problem_id,
                    index=wanted.index,
                    prompt="\n\n".join(message.content for message in wanted.messages),
                    completion=completion.text,
                    finish_reason=completion.finish_reason,
                    num_tokens=completion.num_tokens,
                    seed=wanted.seed,
                )
                run.results.put(output)
        except HoneError as error:
            run.results.put(error)
        finally:
            run.results.put(None)

    def _ask(self, run: _Run, wanted: Wanted, decoding: Decoding) -> _Completion | None:
        """Ask for an output until it comes; None where nobody wants it any more."""
        body = {
            "model": self.model,
            "messages": [{"role": message.role, "content": message.content} for message in wanted.messages],
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "max_tokens": decoding.max_tokens,
            "seed": wanted.seed,
        }
        data = json.dumps(body).encode()
        tries, before, now = 0, run.moment(), run.moment()
        while True:
            tries += 1
            try:
                completion = self._request(_CHAT, data, _completion, timeout=self.timeout, run=run)
            except _Again as trouble:
                if run.stopped.is_set():
                    return None
                if trouble.late:
                    self._note_late(run)
                if tries >= self.tries and not (trouble.busy and run.others_served_since(before)):
                    raise RunError(
                        f"{self.name}: problem {line(wanted.problem_id)}, output {wanted.index}: no output in {tries} "
                        f"tries; the last: {trouble}; {_MEND_BUSY if trouble.busy else _MEND}"
                    ) from trouble
                if run.stopped.wait(self._pause(tries, trouble)):
                    return None
                before, now = now, run.moment()
            else:
                run.note_answered()
                return completion

    def _pause(self, tries: int, trouble: _Again) -> float:
        """Return after how many seconds to try again; by chance, so that requests which failed together do not return
        together."""
        doubled = self.backoff * 2.0 ** min(tries - 1, 30)
        return min(max(doubled * random.uniform(0.5, 1.0), trouble.wait), LONGEST_WAIT)

    def _note_late(self, run: _Run) -> None:
        """Give up on a server that hangs: else its every request would take `tries` times `timeout`."""
        num_late, patience = run.note_late()
        if num_late >= patience:
            raise RunError(
                f"{self.name}: it hangs: {num_late} requests in a row got no answer within {self.timeout:g} s; see to "
                "the server, or give it more time, or ask for fewer tokens or fewer outputs at a time"
            )

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "(the key)") if len(self._key) >= 8 else text  # shorter ones are made up

    def _request(
        self, path: str, data: bytes | None, read: Callable[[Any], _Read], *, timeout: float, run: _Run | None = None
    ) -> _Read:
        """Return what `read` reads in the JSON of one response."""
        through = Line()
        try:
            if run:
                run.hold(through)
            response = send(
                self.base + path, data, self._headers, timeout=timeout, max_bytes=MAX_BYTES, through=through
            )
        except NoResponse as error:
            words = f"it cannot be reached: {error}" if isinstance(error, Unreachable) else str(error)
            raise _Again(words, late=isinstance(error, Late)) from error
        finally:
            if run:
                run.let_go(through)
        if response.error:
            self._refused(response)
        try:
            return read(_json(response.body))
        except _Again as again:
            raise _Again(f"{again}: {self._said(response)[:MOST_QUOTED]}") from again

    def _said(self, response: Response) -> str:
        """Return the beginning of what a server says, without the key that it may say back."""
        beginning = response.body[: 2**16].decode("utf-8", "replace")
        return line(self._without_key(beginning))

    def _refused(self, response: Response) -> NoReturn:
        """Tell apart what waiting may mend and what it cannot."""
        words = f"status {response.status} {response.reason}: {self._said(response) or 'it says nothing'}"
        if response.status in _AGAIN or response.status >= 500:
            raise _Again(words, wait=response.retry_after(), busy=response.status in _BUSY)
        if response.status < 400:
            place = line(self._without_key(response.headers.get("location", "nowhere")))
            raise HoneError(f"{self.name} redirects to {place}: correct the address")
        mend = _MENDS.get(response.status)
        raise HoneError(f"{self.name} refuses: {words}" + (f"; {mend}" if mend else ""))

    def _only_model(self) -> str:
        """Ask which models there are; take the only one."""
        names = self._model_names()
        if len(names) == 1 and names[0].isprintable():
            return names[0]
        shown = f" ({', '.join(map(line, names[:10]))}{', ...' * (len(names) > 10)})" if names else ""
        raise HoneError(f"{self.name} has {len(names)} models{shown}: name the one to evaluate")

    def _model_names(self) -> list[str]:
        trouble: _Again | None = None
        for tries in range(self.tries):
            if trouble:
                time.sleep(self._pause(tries, trouble))
            try:
                return self._request("/models", None, _names, timeout=min(self.timeout, LONGEST_WAIT))
            except _Again as again:
                trouble = again
                if not trouble.busy:  # nothing can be lost yet, so there is no reason to be patient
                    break
        raise HoneError(f"{self.name} does not say which models it has: {trouble}; start it, or correct the address")


class _Again(Exception):
    """No output, and why; the next try may fare better. `late`: nothing came in time. `wait`: what the server asks."""

    def __init__(self, why: str, *, wait: float = 0.0, late: bool = False, busy: bool = False) -> None:
        super().__init__(why)
        self.wait, self.late, self.busy = wait, late, busy


class _Moment(NamedTuple):
    time: float
    num_answered: int


@dataclass(slots=True, kw_only=True)
class _Run:
    """What the threads of one `generate` share. Each of them ends its results with None."""

    todo: Iterator[Wanted]
    room: threading.Semaphore  # for outputs that are under way or not yet taken
    num_workers: int
    results: queue.SimpleQueue[Output | HoneError | None] = field(default_factory=queue.SimpleQueue)
    stopped: threading.Event = field(default_factory=threading.Event)
    num_answered: int = 0
    num_late: int = 0  # requests since one was answered
    lines: dict[Line, float] = field(default_factory=dict)  # what is in flight, and since when
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self) -> Wanted | None:
        """Return what is to be asked for next, once there is room for it."""
        self.room.acquire()
        with self.lock:
            return None if self.stopped.is_set() else next(self.todo, None)

    def stop(self) -> None:
        """Hang up on what is in flight; wake the threads that wait for room."""
        with self.lock:
            self.stopped.set()
            for through in self.lines:
                through.cut()
        self.room.release(MAX_CONCURRENCY)

    def finished(self) -> Iterator[Output]:
        """Yield the outputs that wait to be taken."""
        while not self.results.empty():
            result = self.results.get()
            if isinstance(result, Output):
                yield result

    def hold(self, through: Line) -> None:
        with self.lock:
            self.lines[through] = time.monotonic()
            if self.stopped.is_set():
                through.cut()

    def let_go(self, through: Line) -> None:
        with self.lock:
            del self.lines[through]

    def moment(self) -> _Moment:
        with self.lock:
            return _Moment(time.monotonic(), self.num_answered)

    def others_served_since(self, moment: _Moment) -> bool:
        """Say whether the server has answered other requests since, or holds one from before: it is busy with these."""
        with self.lock:
            held = any(started < moment.time for started in self.lines.values())
            return held or self.num_answered > moment.num_answered

    def note_answered(self) -> None:
        with self.lock:
            self.num_answered += 1
            self.num_late = 0

    def note_late(self) -> tuple[int, int]:
        """Return how many requests in a row were late, and from how many on the server is held to hang."""
        with self.lock:
            self.num_late += 1
            return self.num_late, self.num_workers * (2 if self.num_answered else 1)


# --- what a server may say ---


@dataclass(frozen=True, slots=True, kw_only=True)
class _Completion:
    text: str
    finish_reason: Literal["stop", "length"]
    num_tokens: int | None


def _json(body: bytes) -> Any:
    def no_number(word: str) -> NoReturn:
        raise ValueError(word)  # NaN and infinity are no JSON

    try:
        return json.loads(body, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        raise _Again("not JSON") from error


def _names(said: Any) -> list[str]:
    match said:
        case {"data": [*cards]}:
            names = [card["id"] for card in cards if isinstance(card, dict) and isinstance(card.get("id"), str)]
            if len(names) == len(cards):
                return names
    raise _Again("JSON that lists no models")


def _completion(said: Any) -> _Completion:
    """Return a chat completion, or raise `_Again` naming what is wrong.

    A finish reason other than `stop` and `length` is refused: what a filter cut or a server broke off is not what the
    model says, and would be scored as if it were.
    """
    match said:
        case {"choices": [{"message": dict() as message, "finish_reason": reason}, *_]}:
            pass
        case _:
            raise _Again("JSON that is no chat completion")
    content = _text(message, "content")
    reasoning = _text(message, "reasoning_content") or _text(message, "reasoning")
    if content is None and reasoning is None:
        raise _Again("a message without content")
    if reason not in ("stop", "length"):
        raise _Again(f"finish_reason {line(json.dumps(reason))}, so the output is not whole")
    return _Completion(text=_joined(reasoning, content), finish_reason=reason, num_tokens=_num_tokens(said))


def _joined(reasoning: str | None, content: str | None) -> str:
    """Put the thinking back before the answer, as the model wrote them. Without an answer it was not closed."""
    if not reasoning:
        return content or ""
    opened = f"<think>\n{reasoning}"
    return f"{opened}\n</think>\n{content}" if content else opened


_HALVES = re.compile("[\ud800-\udfff]")  # of surrogate pairs: JSON can write them alone, no file can


def _text(message: dict[str, Any], name: str) -> str | None:
    text = message.get(name)
    if not (text is None or isinstance(text, str)):
        raise _Again(f"{name} is {type(text).__name__}, not text")
    return text if text is None else _HALVES.sub("\N{REPLACEMENT CHARACTER}", text)


def _num_tokens(said: dict[str, Any]) -> int | None:
    """Return the completion's tokens as the server counts them; None where it does not."""
    match said.get("usage"):
        case None:
            return None
        case {"completion_tokens": int(number)} if not isinstance(number, bool) and 0 <= number < 2**31:
            return number
    raise _Again("usage.completion_tokens that is no number of tokens")


# --- where the server is ---


def _base(url: str) -> str:
    """Return the address before `/chat/completions`."""
    given = url.strip().rstrip("/")
    if not is_address(given) or "?" in given or "#" in given:
        shown = line(re.sub(r"[^/]*@|[?#].*", "...", given))  # what may be a key is left out
        raise HoneError(f"{shown!r} is no address of an endpoint; write it as http://localhost:8000/v1")
    if given.endswith(_CHAT):
        return given.removesuffix(_CHAT)
    return given if urlsplit(given).path else given + "/v1"


def _authorization(api_key: str | None) -> dict[str, str]:
    key = (api_key or "").strip()
    if not re.fullmatch(r"[!-~]*", key):
        raise HoneError("the API key holds characters that no key has: set it again")
    return {"Authorization": f"Bearer {key}"} if key else {}
