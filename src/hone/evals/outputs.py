"""What is asked of a model in an evaluation, and what comes back."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from hone.types import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One output that is wanted: the `index`-th (from 0) of a problem, drawn by a seed of its own."""

    problem_id: str
    index: int
    messages: tuple[Message, ...]
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output of a model. `prompt` is what it was asked: rendered by the template, or the messages' text.

    `num_tokens` counts the completion's tokens; None where nobody said.
    `finish_reason`: `length` is a cut output, None one that
    was made elsewhere.
    """

    problem_id: str
    index: int
    prompt: str
    completion: str
    finish_reason: Literal["stop", "length"] | None
    num_tokens: int | None
    seed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How outputs are drawn; the defaults are the paper's. `template`: `chat`, the model's own, or `r1-zero`."""

    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 32768
    template: str = "chat"


class Source(Protocol):
    """A model that can be asked: one of this machine, or one behind an endpoint."""

    model: str
    model_hash: str  # the checksum of its weights; empty where it cannot be known

    def generate(self, wanted: Sequence[Wanted], decoding: Decoding) -> Generator[Output]:
        """Yield the outputs as they finish, in any order."""
        ...
