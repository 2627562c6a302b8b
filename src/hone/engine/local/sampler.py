"""Draws completions by continuous batching: a prompt is prefilled once for its whole group, and a finished sequence
leaves the batch at once, so that its place goes to the next one.

Each sequence has its own random numbers, fixed by the seed and its index, so what it draws does not depend on which
others happen to share a batch with it.

Axes: N sequences under way, V vocabulary, H hidden.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby

import numpy as np
import torch
from torch import Tensor

from hone.algo import kernels
from hone.models.attention import Layout
from hone.models.decoder import Decoder
from hone.models.tokenizer import Tokenizer
from hone.types import FinishReason, Floats, HoneError, Prompt, Rollout, RunError, SamplingParams, Segment

CACHE_BYTES = 8 << 30  # of keys and values at most
PREFILL_TOKENS = 8192  # prompt tokens that go through the model at once
LIKELIEST = 256  # tokens among which top-p is first looked for
WIDE, BLOCK = 4096, 128  # from which size of a vocabulary on tokens are drawn by blocks of this size


@dataclass(slots=True, eq=False)
class Running:
    """One completion under way. `uniforms` [max_tokens] are the random numbers that it is drawn by."""

    params: SamplingParams
    uniforms: Sequence[float]
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    likeliest: list[list[tuple[int, float]]] = field(default_factory=list)  # a list a token, if asked for
    finish_reason: FinishReason | None = None

    def note(self, token: int, logprob: float, tokenizer: Tokenizer) -> None:
        """Add a token with its log-probability, and see whether it ends the completion."""
        self.ids.append(token)
        self.logprobs.append(logprob)
        if token == tokenizer.eos_id or (self.params.stop and self._stopped(tokenizer)):
            self.finish_reason = "stop"
        elif len(self.ids) == self.params.max_tokens:
            self.finish_reason = "length"

    def _stopped(self, tokenizer: Tokenizer) -> bool:
        # Every token adds at least one byte, so a stop text that has just appeared lies in this many last ones.
        return any(text in tokenizer.decode(self.ids[-len(text.encode()) - 1 :]) for text in self.params.stop)


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and the completions wanted of it: one for each row of `uniforms` [num_samples, max_tokens]."""

    ids: Sequence[int]
    params: SamplingParams
    uniforms: Floats


class Batch:
    """Sequences that share the model's steps; they come and go between steps."""

    def __init__(self, model: Decoder, tokenizer: Tokenizer, *, max_rows: int, num_positions: int) -> None:
        self.model, self.tokenizer, self.max_rows = model, tokenizer, max_rows
        self.cache = model.cache(max_rows, num_positions)
        self.active: list[Running] = []  # row by row
        self._hidden = self.cache.store.new_empty(0, model.config.hidden_size)  # [N, H] from which they draw next

    @property
    def num_active(self) -> int:
        return len(self.active)

    @property
    def num_free(self) -> int:
        return self.max_rows - len(self.active)

    def add(self, ids: Sequence[int], params: SamplingParams, uniforms: Floats) -> list[Running]:
        """Prefill a prompt; return a running sequence for each row of `uniforms` [num_samples, max_tokens]."""
        return self.extend([Request(ids, params, uniforms)])

    @torch.inference_mode()
    def extend(self, requests: Sequence[Request]) -> list[Running]:
        """Prefill prompts in one pass; return their running sequences, in order. The rows must be free."""
        first, start = len(self.active), 0
        places, last = [], []
        for request in requests:
            end, row = start + len(request.ids), len(self.active)
            places.append((slice(start, end), slice(row, row + len(request.uniforms))))
            last += [end - 1] * len(request.uniforms)
            start = end
            self.active += [Running(request.params, memoryview(uniforms)) for uniforms in request.uniforms]
        ids = torch.as_tensor(np.concatenate([np.asarray(request.ids, np.int64) for request in requests]))
        layout = Layout.of([Segment(len(request.ids)) for request in requests])
        hidden = self.model.flat(ids.to(self._device), layout, self.cache.prompts(places))
        self._hidden = torch.cat((self._hidden[:first], hidden[torch.tensor(last, device=self._device)]))
        return self.active[first:]

    @torch.inference_mode()
    def step(self) -> list[Running]:
        """Draw one token for each sequence; return all of them. Those with a finish reason have left the batch."""
        drawn = self.active
        self._draw(self._hidden)
        self._leave([row for row, sequence in enumerate(drawn) if sequence.finish_reason])
        if self.active:
            ids = torch.tensor([sequence.ids[-1] for sequence in self.active], device=self._device)
            self._hidden = self.model.decode(ids, self.cache)
        return drawn

    @torch.inference_mode()
    def drop(self, sequence: Running) -> None:
        """Take a sequence out before it has finished."""
        self._hidden = self._hidden[self._leave([self.active.index(sequence)])]

    def _leave(self, rows: Sequence[int]) -> list[int]:
        """Free rows, the last ones moving into the gaps; return which row each one was before."""
        gone, stay = set(rows), len(self.active) - len(rows)
        order = list(range(stay))
        late = (row for row in range(stay, len(self.active)) if row not in gone)
        for gap in (row for row in rows if row < stay):
            order[gap] = next(late)
            self.cache.move(order[gap], gap)
        self.active = [self.active[row] for row in order]
        return order

    def _draw(self, hidden: Tensor) -> None:
        """Draw one token for each sequence from the hidden states [N, H], and note it with its log-probability."""
        rows = range(len(self.active))
        settings = [sequence.params for sequence in self.active]
        if all(params is settings[0] for params in settings):
            self._draw_alike(hidden, self.active)
            return
        for _, alike in groupby(sorted(rows, key=lambda row: repr(settings[row])), key=lambda row: settings[row]):
            chosen = list(alike)
            index = torch.tensor(chosen, device=self._device)
            self._draw_alike(hidden[index], [self.active[row] for row in chosen])

    def _draw_alike(self, hidden: Tensor, sequences: Sequence[Running]) -> None:
        """Draw for sequences of the same settings from their hidden states [N, H]."""
        params = sequences[0].params
        if params.temperature not in (0, 1):
            hidden = hidden / params.temperature
        logits = self.model.logits(hidden).float()
        ids, logprobs = draw(logits, sequences)
        if params.num_likeliest:
            every = logits.softmax(-1).log()
            found = [part.tolist() for part in every.topk(min(params.num_likeliest, every.shape[-1]))]
            for sequence, values, tokens in zip(sequences, *found, strict=True):
                sequence.likeliest.append(list(zip(tokens, values, strict=True)))
            logprobs = every.gather(-1, ids[:, None])[:, 0]  # the very number that stands among the alternatives
        for sequence, token, logprob in zip(sequences, ids.tolist(), logprobs.tolist(), strict=True):
            sequence.note(token, logprob, self.tokenizer)

    @property
    def _device(self) -> torch.device:
        return self.cache.store.device


class Sampler:
    """Draws from one decoder. `max_rows` sequences at most are under way at a time."""

    def __init__(self, model: Decoder, tokenizer: Tokenizer, *, max_rows: int = 256) -> None:
        self.model, self.tokenizer, self.max_rows = model, tokenizer, max_rows

    def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams, *, seed: int, policy_version: int = 0,
        on_finish: Callable[[int], None] | None = None, on_token: Callable[[int, int], None] | None = None,
    ) -> list[list[Rollout]]:  # fmt: skip
        """Return the rollouts of each prompt, in order.

        `on_finish` hears how many sequences have finished so far; `on_token` each token as it is drawn, after the
        number of its sequence.
        """
        owners = owners_of(prompts)
        uniforms = np.random.default_rng(seed).random((len(owners), params.max_tokens), np.float32)
        done: dict[int, Rollout] = {}
        for number, sequence in self._run(prompts, params, lambda rows: uniforms[rows], on_token):
            done[number] = self._rollout(sequence, owners[number], policy_version)
            if on_finish:
                on_finish(len(done))
        rollouts = (done[number] for number in range(len(owners)))
        return [[next(rollouts) for _ in range(prompt.num_samples)] for prompt in prompts]

    def stream(
        self, prompts: Sequence[Prompt], params: SamplingParams, *, seeds: Sequence[int]
    ) -> Iterator[tuple[int, Rollout]]:
        """Yield each rollout as it finishes, after the number of its sequence, which has its own of the `seeds`.

        What a sequence draws depends on its seed alone, so that any part of them can be drawn again by itself.
        """

        def uniforms(rows: slice) -> Floats:
            drawn = [np.random.default_rng(seed).random(params.max_tokens, np.float32) for seed in seeds[rows]]
            return np.stack(drawn)

        owners = owners_of(prompts)
        for number, sequence in self._run(prompts, params, uniforms, None):
            yield number, self._rollout(sequence, owners[number], 0)

    def _run(
        self, prompts: Sequence[Prompt], params: SamplingParams, uniforms: Callable[[slice], Floats],
        on_token: Callable[[int, int], None] | None,
    ) -> Iterator[tuple[int, Running]]:  # fmt: skip
        """Yield each sequence as it finishes, after its number; `uniforms` gives the random numbers of some of them."""
        self._check(prompts, params)
        total = sum(prompt.num_samples for prompt in prompts)
        num_positions = max(len(prompt.ids) for prompt in prompts) + params.max_tokens
        rows = min(self.max_rows, total, max(1, CACHE_BYTES // (self.model.config.cache_bytes * num_positions)))
        batch = Batch(self.model, self.tokenizer, max_rows=rows, num_positions=num_positions)
        waiting = _waiting(prompts)
        numbers: dict[Running, int] = {}
        with self.model.prepacked():
            while batch.num_active or waiting:
                while arriving := _arriving(waiting, batch.num_free):
                    fresh = batch.extend([Request(ids, params, uniforms(rows)) for ids, rows in arriving])
                    arrived = (number for _, rows in arriving for number in range(rows.start, rows.stop))
                    numbers |= zip(fresh, arrived, strict=True)
                for sequence in batch.step():
                    if on_token:
                        on_token(numbers[sequence], sequence.ids[-1])
                    if sequence.finish_reason:
                        yield numbers.pop(sequence), sequence

    @property
    def num_positions(self) -> int:
        """How many tokens a prompt and its completion may have together."""
        return self.model.config.max_position_embeddings

    def _check(self, prompts: Sequence[Prompt], params: SamplingParams) -> None:
        longest = max(len(prompt.ids) for prompt in prompts) + params.max_tokens
        if longest > self.num_positions:
            raise HoneError(
                f"a prompt and its {params.max_tokens} new tokens come to {longest}, "
                f"but the model has {self.num_positions} positions; lower max_tokens"
            )
        if any(not len(prompt.ids) for prompt in prompts):
            raise HoneError("a prompt is empty: the model has nothing to continue")

    def _rollout(self, sequence: Running, prompt: Prompt, policy_version: int) -> Rollout:
        assert sequence.finish_reason is not None
        return Rollout(
            prompt_ids=np.asarray(prompt.ids, np.int64),
            completion_ids=np.asarray(sequence.ids, np.int64),
            sampler_logprobs=np.asarray(sequence.logprobs, np.float32),
            text=self.tokenizer.decode(sequence.ids),
            finish_reason=sequence.finish_reason,
            policy_version=policy_version,
        )


def owners_of(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Return the prompt of each sequence."""
    return [prompt for prompt in prompts for _ in range(prompt.num_samples)]


def _waiting(prompts: Sequence[Prompt]) -> deque[tuple[Sequence[int], slice]]:
    """Return each prompt's ids and the numbers of its sequences, in order."""
    ends = accumulate(prompt.num_samples for prompt in prompts)
    return deque((p.ids, slice(end - p.num_samples, end)) for p, end in zip(prompts, ends, strict=True))


def _arriving(waiting: deque[tuple[Sequence[int], slice]], free: int) -> list[tuple[Sequence[int], slice]]:
    """Take from `waiting` what fits into the free rows, and into one prefill; a group may be torn apart."""
    taken: list[tuple[Sequence[int], slice]] = []
    tokens = 0
    while waiting and free and (not taken or tokens + len(waiting[0][0]) <= PREFILL_TOKENS):
        ids, rows = waiting.popleft()
        stop = min(rows.stop, rows.start + free)
        taken.append((ids, slice(rows.start, stop)))
        if stop < rows.stop:
            waiting.appendleft((ids, slice(stop, rows.stop)))
        free -= stop - rows.start
        tokens += len(ids)
    return taken


def draw(logits: Tensor, sequences: Sequence[Running]) -> tuple[Tensor, Tensor]:
    """Return the next tokens [N] of sequences of the same settings, and their log-probabilities before truncation.

    The logits [N, V] are divided by the temperature already. Raises `RunError` where one is not finite.
    """
    params = sequences[0].params
    numbers = np.array([sequence.uniforms[len(sequence.ids)] for sequence in sequences], np.float32)
    uniforms = torch.from_numpy(numbers).to(logits.device)
    if params.temperature and not params.truncates and kernels.usable(logits):
        ids, logprobs = kernels.draw(logits, uniforms)
        _check_finite(logprobs)
        return ids, logprobs
    probs = logits.softmax(-1)
    _check_finite(probs[:, 0])  # a logit that is not finite leaves no probability of its row finite
    ids = inverse_cdf(truncate(probs, params), uniforms) if params.temperature else logits.argmax(-1)
    return ids, probs.gather(-1, ids[:, None])[:, 0].log()


def _check_finite(values: Tensor) -> None:
    if not math.isfinite(values.sum()):  # one that is not finite leaves no finite sum
        raise RunError("the model's logits are not finite: its weights have diverged or are damaged")


def truncate(probs: Tensor, params: SamplingParams) -> Tensor:
    """Zero the probabilities [N, V] that top-k, top-p and min-p leave out; what is left does not add up to one."""
    if params.min_p > 0:
        probs = probs.where(probs >= params.min_p * probs.amax(-1, keepdim=True), 0)
    if params.top_k > 0 or params.top_p < 1:
        ordered, order = _likeliest(probs, params)
        if params.top_p < 1:
            # The smallest set that reaches top_p: a token stays while those before it have not reached it.
            total = ordered.sum(-1, keepdim=True) if params.top_k > 0 else probs.sum(-1, keepdim=True)
            before = ordered.cumsum(-1) - ordered
            ordered = ordered.where(before < params.top_p * total, 0)
        probs = torch.zeros_like(probs).scatter_(-1, order, ordered)
    return probs


def _likeliest(probs: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Return the largest probabilities in descending order, and their tokens: all that top-k and top-p can keep."""
    size = probs.shape[-1]
    if params.top_k > 0:
        return probs.topk(min(params.top_k, size))
    if size > LIKELIEST:  # sorting a large vocabulary takes longer than the model's own products
        ordered, order = probs.topk(LIKELIEST)
        if bool((ordered.sum(-1) >= params.top_p * probs.sum(-1)).all()):
            return ordered, order
    return probs.sort(-1, descending=True)


def inverse_cdf(probs: Tensor, uniforms: Tensor) -> Tensor:
    """Draw one index a row [N] from unnormalised probabilities [N, V] by one uniform number each [N]."""
    size = probs.shape[-1]
    if size <= WIDE:
        return _find(probs, uniforms * probs.sum(-1))[0]
    # First the block of tokens, then the token in it: one pass over the row instead of a running sum of all of it.
    whole = size // BLOCK * BLOCK
    sums = probs[:, :whole].unflatten(-1, (-1, BLOCK)).sum(-1)
    if whole < size:
        sums = torch.cat((sums, probs[:, whole:].sum(-1, keepdim=True)), -1)
    block, rest = _find(sums, uniforms * sums.sum(-1))
    places = block[:, None] * BLOCK + torch.arange(BLOCK, device=probs.device)
    inside = probs.gather(-1, places.clamp(max=size - 1)).where(places < size, 0)
    return block * BLOCK + _find(inside, rest)[0]


def _find(weights: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the running sums of `weights` [N, V] pass `wanted` [N], and how far into that weight it lies."""
    sums = weights.cumsum(-1)
    # Below the total in float32 too, so the index found has a weight above zero.
    wanted = torch.minimum(wanted, sums[:, -1].nextafter(sums.new_zeros(())))
    index = torch.searchsorted(sums, wanted[:, None], right=True)
    before = sums.gather(-1, (index - 1).clamp(min=0)).where(index > 0, 0)
    return index[:, 0], wanted - before[:, 0]
