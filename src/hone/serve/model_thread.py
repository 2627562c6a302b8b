"""One thread runs the model: requests come in, tokens go out, and all sequences under way share the model's steps.

The thread consumes the requests that wait, oldest first, waits where there is nothing to do, and is unblocked by a
request, a cancellation or its end; each step produces one token for every sequence. A request whose client has gone
leaves between two steps. It knows token ids: no text, no network.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hone.engine.local.engine import LocalEngine
from hone.engine.local.sampler import CACHE_BYTES, Batch, Running
from hone.types import FinishReason, Floats, HoneError, RunError, SamplingParams

PREFILL_TOKENS = 1024  # prompt tokens between two steps: other streams wait no longer for those who arrive


class QueueFull(HoneError):
    """More sequences wait than may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """One token of a request's sequence `choice`."""

    choice: int
    token: int
    logprob: float
    likeliest: Sequence[tuple[int, float]]  # token and log-probability, likeliest first; none unless asked for
    finish_reason: FinishReason | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """Prompts to be continued `num_samples` times each; what is drawn, or why nothing more will be, goes to `events`.

    The choices are numbered prompt by prompt. Each has its own random numbers, by its number and the seed alone.
    """

    prompts: Sequence[Sequence[int]]
    params: SamplingParams
    num_samples: int
    seed: int | None
    events: asyncio.Queue[Drawn | RunError] = field(default_factory=asyncio.Queue)

    @property
    def num_choices(self) -> int:
        return len(self.prompts) * self.num_samples

    def uniforms(self, number: int) -> Floats:
        """Return the random numbers [num_samples, max_tokens] for one prompt, as `Sampler.sample` would draw them."""
        generator = np.random.default_rng(None if self.seed is None else self.seed % 2**64)
        first = number * self.num_samples
        drawn = generator.random((first + self.num_samples, self.params.max_tokens), np.float32)
        return drawn[first:]


class ModelThread:
    """Serves requests by one model: `max_rows` sequences at a time, of `num_positions` tokens with their prompts."""

    def __init__(self, engine: LocalEngine, *, max_rows: int, max_waiting: int) -> None:
        self.engine, self.max_rows, self.max_waiting = engine, max_rows, max_waiting
        config = engine.model.config
        self.num_positions = min(config.max_position_embeddings, CACHE_BYTES // (config.cache_bytes * max_rows))
        self._batch = self._new_batch()
        self._changed = threading.Condition()
        # Shared, under `_changed`: the sequences that each request still has coming, and what the thread has to do.
        self._unfinished: dict[Request, int] = {}
        self._waiting: deque[tuple[Request, int]] = deque()  # a prompt each
        self._cancelled: set[Request] = set()
        self._closing = False
        self.failed = False
        self._owners: dict[Running, tuple[Request, int]] = {}  # the thread's own
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread.start()

    def close(self) -> None:
        """Fail what is under way, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout=2)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def num_running(self) -> int:
        return len(self._owners)

    @property
    def num_waiting(self) -> int:
        with self._changed:
            return sum(request.num_samples for request, _ in self._waiting)

    def submit(self, request: Request) -> None:
        """Take a request in, or refuse it where more than `max_waiting` sequences would wait."""
        with self._changed:
            if sum(self._unfinished.values()) + request.num_choices > self.max_rows + self.max_waiting:
                raise QueueFull(f"{self.max_rows} sequences are under way and {self.max_waiting} wait; try again later")
            if self._closing:
                raise RunError("the server is shutting down")
            self._unfinished[request] = request.num_choices
            self._waiting += [(request, number) for number in range(len(request.prompts))]
            self._changed.notify()

    def cancel(self, request: Request) -> None:
        """Give up a request, finished or not; its rows are free before the next step."""
        with self._changed:
            if self._unfinished.pop(request, None):
                self._waiting = deque(entry for entry in self._waiting if entry[0] is not request)
                self._cancelled.add(request)
                self._changed.notify()

    def _new_batch(self) -> Batch:
        engine = self.engine
        return Batch(engine.model, engine.tokenizer, max_rows=self.max_rows, num_positions=self.num_positions)

    def _run(self) -> None:
        try:
            with self.engine.model.prepacked():
                while self._wait():
                    self._turn()
        except BaseException:
            self.failed = True
            raise
        finally:  # nobody may wait for it forever
            with self._changed:
                self._closing = True
            self._fail_all("the server has stopped")

    def _wait(self) -> bool:
        """Wait until there is something to do; say whether to go on."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._waiting or self._cancelled or self._owners)
            return not self._closing

    def _turn(self) -> None:
        self._drop_cancelled()
        try:
            self._admit()
            if self._owners:
                self._step()
        except (HoneError, RuntimeError, MemoryError) as error:
            self._fail_all(f"the model failed: {error}")
            self._batch = self._new_batch()

    def _drop_cancelled(self) -> None:
        with self._changed:
            gone, self._cancelled = self._cancelled, set()
        for sequence in [sequence for sequence, (request, _) in self._owners.items() if request in gone]:
            self._batch.drop(sequence)
            del self._owners[sequence]

    def _admit(self) -> None:
        """Begin waiting prompts, in their order, as far as rows are free."""
        tokens = 0
        while tokens < PREFILL_TOKENS and (arrival := self._next_arrival()):
            request, number = arrival
            first = number * request.num_samples
            fresh = self._batch.add(request.prompts[number], request.params, request.uniforms(number))
            self._owners |= {sequence: (request, first + n) for n, sequence in enumerate(fresh)}
            tokens += len(request.prompts[number])

    def _next_arrival(self) -> tuple[Request, int] | None:
        with self._changed:
            if not self._waiting or self._waiting[0][0].num_samples > self._batch.num_free:
                return None
            return self._waiting.popleft()

    def _step(self) -> None:
        drawn: list[tuple[Request, Drawn | RunError]] = []
        finished = []
        for sequence in self._batch.step():
            request, choice = self._owners[sequence]
            token = Drawn(
                choice=choice,
                token=sequence.ids[-1],
                logprob=sequence.logprobs[-1],
                likeliest=sequence.likeliest[-1] if sequence.likeliest else (),
                finish_reason=sequence.finish_reason,
            )
            drawn.append((request, token))
            if sequence.finish_reason:
                del self._owners[sequence]
                finished.append(request)
        self._count_finished(finished)
        self._send(drawn)

    def _count_finished(self, requests: Sequence[Request]) -> None:
        with self._changed:
            for request in requests:
                if request in self._unfinished:
                    self._unfinished[request] -= 1
                    if not self._unfinished[request]:
                        del self._unfinished[request]

    def _fail_all(self, why: str) -> None:
        with self._changed:
            failed = list(self._unfinished)
            self._unfinished.clear()
            self._waiting.clear()
        self._owners.clear()
        self._send([(request, RunError(why)) for request in failed])

    def _send(self, events: Sequence[tuple[Request, Drawn | RunError]]) -> None:
        if events and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_hand_over, events)


def _hand_over(events: Sequence[tuple[Request, Drawn | RunError]]) -> None:
    for request, event in events:
        request.events.put_nowait(event)
