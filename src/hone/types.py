"""The data that flows through a run: one frozen type for each state.

`Problem -> Rollout -> Group -> ScoredGroup -> Sample -> PackedBatch`. A later state is a new object, never an
earlier one filled in, so nothing half-made exists. Standard library and numpy only: this module does not know
torch, the recipe, or where problems come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]
Language = Literal["en", "zh"]
FinishReason = Literal["stop", "length"]


class HoneError(Exception):
    """Something that the user can mend: one clear line saying what, where and the mend. The command exits 2."""


class RunError(HoneError):
    """A run that cannot go on, through no fault of its recipe (a full disk, a non-finite loss). Exits 1."""


class Verdict(StrEnum):
    """What a verifier found. `UNSCORABLE` is masked and counted, never a silent zero."""

    RIGHT = "right"
    WRONG = "wrong"
    UNSCORABLE = "unscorable"


class Verified(NamedTuple):
    """What a verifier says of one answer: the verdict, why in a few words, and what it is worth.

    `credit` is 1 for right and 0 otherwise, but for the share of its tests that a program passes.
    """

    verdict: Verdict
    why: str
    credit: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation, e.g. `Message(role="user", content="use 3 8 8 make 61")`."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StdinTest:
    """A run of the program: what it reads, and what it must print."""

    stdin: str
    stdout: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTest:
    """A call of a function of the program, with JSON values, e.g. `CallTest(function="add", args=(1, 2), expected=3)`.

    A method is named with its class: `Solution.twoSum` is called on a fresh `Solution()`.
    """

    function: str
    args: tuple[Any, ...]
    expected: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertTest:
    """Python code that uses the program's names and raises where the program is wrong: one assert or many."""

    code: str


CodeTest = StdinTest | CallTest | AssertTest


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A question with its reference answer or, for a program, its tests.

    `verifier` names what decides whether an answer is right, and `extract` where in a completion the answer stands
    (`rewards.verifiers`, `rewards.extract`). `answer` is what the verifier compares with: a number, a formula, a
    letter, for Countdown one right expression, for code a right program where there is one. `setup` is code that
    precedes a program, such as imports. `asked` is the question without the prompt around it; empty where they are
    the same. `tags` say what a benchmark is broken down by, e.g. `{"subject": "Algebra", "level": "3"}`.
    Example: `Problem(id="countdown/3-8-8=61", task="countdown", messages=(...), answer="8 * 8 - 3",
    verifier="expression", language="en")`.
    """

    id: str
    task: str
    messages: tuple[Message, ...]
    answer: str = ""
    verifier: str = "number"
    extract: str = "tags"
    language: Language = "en"
    tests: tuple[CodeTest, ...] = ()
    setup: str = ""
    asked: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def question(self) -> str:
        return self.asked or self.messages[-1].content


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One output of the policy for one prompt, of T tokens; the end token, where it was drawn, is among them."""

    prompt_ids: Ids  # [P]
    completion_ids: Ids  # [T]
    sampler_logprobs: Floats  # [T] natural log, of the distribution at the sampling temperature, before truncation
    text: str  # the completion, decoded without the end token
    finish_reason: FinishReason
    policy_version: int

    def __post_init__(self) -> None:
        if len(self.completion_ids) != len(self.sampler_logprobs):
            raise ValueError(
                f"rollout: {len(self.completion_ids)} completion ids but {len(self.sampler_logprobs)} logprobs"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The G rollouts of one problem."""

    problem: Problem
    rollouts: tuple[Rollout, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The reward of one rollout, its named parts (weighted: they add up to `reward`), and the verifier's verdict."""

    reward: float
    parts: Mapping[str, float]
    verdict: Verdict
    why: str = ""
    credit: float = 0.0  # what the verifier said that the answer is worth


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredGroup:
    """A group with one score for each rollout, in the same order."""

    problem: Problem
    rollouts: tuple[Rollout, ...]
    scores: tuple[Score, ...]

    def __post_init__(self) -> None:
        if len(self.rollouts) != len(self.scores):
            raise ValueError(f"{self.problem.id}: {len(self.rollouts)} rollouts but {len(self.scores)} scores")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One training sequence of S = P + T tokens, with the advantage that its T completion tokens share.

    A supervised example is a sample with advantage 1 and no logprobs. `old_logprobs` and `ref_logprobs` are those of
    the policy that sampled it and of the reference policy.
    """

    prompt_ids: Ids  # [P], P >= 1
    completion_ids: Ids  # [T], T >= 1
    advantage: float
    old_logprobs: Floats | None = None  # [T]
    ref_logprobs: Floats | None = None  # [T]

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


class Segment(NamedTuple):
    """A run of tokens of a flat batch; `parent` is the number of the run that it continues, if any."""

    length: int
    parent: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Samples as one flat run of S tokens without padding, to go through the model at once.

    Samples of one prompt share it: each of their completions is a segment that continues the prompt's. The arrays over
    the T completion tokens are in the order of the samples; `positions` says where each of them is predicted, as an
    index into the S hidden states. A completion's last token predicts nothing and is not among the S.
    """

    input_ids: NDArray[np.int64]  # [S]
    segments: tuple[Segment, ...]
    positions: NDArray[np.int64]  # [T]
    targets: NDArray[np.int64]  # [T]
    weights: Floats  # [T] the loss of the optimizer step is sum(weights * token_loss)
    advantages: Floats  # [T]
    old_logprobs: Floats | None  # [T]
    ref_logprobs: Floats | None  # [T]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch:
    """Everything that one optimizer step trains on, split into micro-batches."""

    micro_batches: tuple[MicroBatch, ...]
    num_tokens: int  # real tokens, prompts among them, without padding
    num_loss_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How completions are drawn. `top_k=0`, `top_p=1` and `min_p=0` leave the distribution whole."""

    max_tokens: int
    temperature: float = 1.0  # 0 takes the likeliest token
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()  # a completion ends where its text contains one of these
    num_likeliest: int = 0  # how many alternatives of each token to keep, likeliest first

    @property
    def truncates(self) -> bool:
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomReward:
    """A reward function of the user's own: `function` is `package.module:name`, and `name` labels its part.

    It is called as `name(question, response, answer)` in a worker process, with strings, and returns a number, or None
    where it cannot judge. `reads` says whether it gets the whole response or the summary after the thinking alone.
    """

    function: str
    weight: float = 1.0
    reads: Literal["response", "summary"] = "response"

    @property
    def name(self) -> str:
        return self.function.rpartition(":")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardRule:
    """How a reward is put together: the weight of each part, and what the parts are read from."""

    accuracy: float = 1.0
    format: float = 1.0
    language: float = 0.0
    partial_credit: bool = False  # a program earns the share of its tests that it passes
    format_variant: Literal["strict", "tolerant", "direct"] = "strict"
    target_language: str | None = None  # None: the question's
    custom: tuple[CustomReward, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt as the sampler takes it, and how many completions of it are wanted."""

    ids: Sequence[int]
    num_samples: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One row of supervised data: the model is trained to continue `prompt` with `completion`."""

    prompt: str
    completion: str
    language: Language = "en"
    tags: Mapping[str, str] = field(default_factory=dict)
