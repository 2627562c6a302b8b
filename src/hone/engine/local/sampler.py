"""Draws completions by continuous batching: a prompt is prefilled once for its whole group, and a finished sequence
leaves the batch at once, so that its place goes to the next one.

Each sequence has its own random numbers, fixed by the seed and its index, so what it draws does not depend on which
others happen to share a batch with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from hone.models.decoder import Cache, Decoder
from hone.models.tokenizer import Tokenizer
from hone.types import FinishReason, HoneError, Prompt, Rollout, RunError, SamplingParams


@dataclass(slots=True)
class _Sequence:
    """One completion under way."""

    prompt: int
    index: int  # among all sequences of the call, in the order of the prompts
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None


class Sampler:
    """Draws from one decoder. `max_rows` sequences at most are under way at a time."""

    def __init__(self, model: Decoder, tokenizer: Tokenizer, *, max_rows: int = 256) -> None:
        self.model, self.tokenizer, self.max_rows = model, tokenizer, max_rows

    @torch.inference_mode()
    def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams, *, seed: int, policy_version: int = 0,
        on_finish: Callable[[int], None] | None = None, on_token: Callable[[int, int], None] | None = None,
    ) -> list[list[Rollout]]:  # fmt: skip
        """Return the rollouts of each prompt, in order.

        `on_finish` hears how many sequences have finished so far; `on_token` each token as it is drawn, after the
        number of its sequence.
        """
        self._check(prompts, params)
        total = sum(prompt.num_samples for prompt in prompts)
        num_positions = max(len(prompt.ids) for prompt in prompts) + params.max_tokens
        rows = min(self.max_rows, total)
        # A group's prompt is prefilled in one spare row and copied from there to the group's own rows.
        cache = Cache(self.model.config, rows + 1, num_positions, self.model.norm.weight)
        uniforms = np.random.default_rng(seed).random((total, params.max_tokens), np.float32)

        waiting = _sequences(prompts)
        active: list[_Sequence] = []
        lengths = torch.zeros(rows, dtype=torch.long)
        finished: list[_Sequence] = []
        logits = torch.empty(0)
        while active or waiting:
            arrivals = waiting[: rows - len(active)]
            del waiting[: len(arrivals)]
            if arrivals:
                fresh = self._prefill(prompts, arrivals, len(active), cache, lengths)
                logits = torch.cat((logits, fresh)) if active else fresh
                active += arrivals
            ids = self._draw(active, logits, params, uniforms)
            if on_token:
                for sequence in active:
                    on_token(sequence.index, sequence.ids[-1])
            stay = [row for row, sequence in enumerate(active) if not self._finish(sequence, params)]
            if len(stay) < len(active):
                finished += [sequence for sequence in active if sequence.finish_reason]
                if on_finish:
                    on_finish(len(finished))
                active = [active[row] for row in stay]
                kept = torch.tensor(stay, dtype=torch.long)
                self._close_gaps(kept, cache, lengths)
                ids = ids[kept]
            if active:
                now = lengths[: len(active)]
                logits = self.model.logits(self.model.decode(ids, now, cache)).float()
                now += 1
        finished.sort(key=lambda sequence: sequence.index)
        grouped: list[list[Rollout]] = [[] for _ in prompts]
        for sequence in finished:
            grouped[sequence.prompt].append(self._rollout(sequence, prompts, policy_version))
        return grouped

    def _check(self, prompts: Sequence[Prompt], params: SamplingParams) -> None:
        longest = max(len(prompt.ids) for prompt in prompts) + params.max_tokens
        limit = self.model.config.max_position_embeddings
        if longest > limit:
            raise HoneError(
                f"a prompt and its {params.max_tokens} new tokens come to {longest}, "
                f"but the model has {limit} positions; lower max_tokens"
            )
        if any(not len(prompt.ids) for prompt in prompts):
            raise HoneError("a prompt is empty: the model has nothing to continue")

    def _prefill(
        self, prompts: Sequence[Prompt], arrivals: list[_Sequence], first: int, cache: Cache, lengths: Tensor
    ) -> Tensor:
        """Fill the rows from `first` on with the arrivals' prompts; return the logits [N, V] that follow them.

        Each distinct prompt goes through the model once, whether one or all sequences of its group arrive.
        """
        spare = cache.store.shape[2] - 1
        logits = []
        start = 0
        while start < len(arrivals):
            number = arrivals[start].prompt
            end = start
            while end < len(arrivals) and arrivals[end].prompt == number:
                end += 1
            ids = torch.as_tensor(np.asarray(prompts[number].ids))[None]
            hidden = self.model(ids, cache.rows_from(spare))[:, -1]
            cache.spread(spare, slice(first + start, first + end), ids.shape[1])
            lengths[first + start : first + end] = ids.shape[1]
            logits.append(self.model.logits(hidden).float().expand(end - start, -1))
            start = end
        return torch.cat(logits)

    def _draw(self, active: list[_Sequence], logits: Tensor, params: SamplingParams, uniforms: np.ndarray) -> Tensor:
        """Draw one token a row, note it with its log-probability, and return the ids [N]."""
        if params.temperature > 0:
            logits = logits / params.temperature
        normalisers = logits.logsumexp(-1)
        if not normalisers.isfinite().all():
            raise RunError("the model's logits are not finite: its weights have diverged or are damaged")
        if params.temperature == 0:
            ids = logits.argmax(-1)
        else:
            wanted = torch.from_numpy(uniforms[[s.index for s in active], [len(s.ids) for s in active]])
            ids = _inverse_cdf(truncate(logits.softmax(-1), params), wanted)
        logprobs = logits.gather(-1, ids[:, None])[:, 0] - normalisers
        for sequence, token, logprob in zip(active, ids.tolist(), logprobs.tolist(), strict=True):
            sequence.ids.append(token)
            sequence.logprobs.append(logprob)
        return ids

    def _finish(self, sequence: _Sequence, params: SamplingParams) -> bool:
        if sequence.ids[-1] == self.tokenizer.eos_id or self._stopped(sequence, params.stop):
            sequence.finish_reason = "stop"
        elif len(sequence.ids) == params.max_tokens:
            sequence.finish_reason = "length"
        return sequence.finish_reason is not None

    def _stopped(self, sequence: _Sequence, stop: tuple[str, ...]) -> bool:
        # Every token adds at least one byte, so a stop text that has just appeared lies in this many last ones.
        return any(text in self.tokenizer.decode(sequence.ids[-len(text.encode()) - 1 :]) for text in stop)

    @staticmethod
    def _close_gaps(kept: Tensor, cache: Cache, lengths: Tensor) -> None:
        """Move the rows that stay to the front."""
        if not len(kept):
            return
        rows = len(kept)
        span = int(lengths[kept].max())
        moved = (kept != torch.arange(rows)).nonzero()[:, 0]
        cache.move(kept[moved], moved, span)
        lengths[:rows] = lengths[kept]

    def _rollout(self, sequence: _Sequence, prompts: Sequence[Prompt], policy_version: int) -> Rollout:
        assert sequence.finish_reason is not None
        return Rollout(
            prompt_ids=np.asarray(prompts[sequence.prompt].ids, np.int64),
            completion_ids=np.asarray(sequence.ids, np.int64),
            sampler_logprobs=np.asarray(sequence.logprobs, np.float32),
            text=self.tokenizer.decode(sequence.ids),
            finish_reason=sequence.finish_reason,
            policy_version=policy_version,
        )


def _sequences(prompts: Sequence[Prompt]) -> list[_Sequence]:
    owners = [number for number, prompt in enumerate(prompts) for _ in range(prompt.num_samples)]
    return [_Sequence(prompt=owner, index=index) for index, owner in enumerate(owners)]


def truncate(probs: Tensor, params: SamplingParams) -> Tensor:
    """Zero the probabilities [N, V] that top-k, top-p and min-p leave out; what is left does not add up to one."""
    if params.min_p > 0:
        probs = probs.where(probs >= params.min_p * probs.amax(-1, keepdim=True), 0)
    if params.top_k > 0 or params.top_p < 1:
        ordered, order = probs.sort(-1, descending=True)
        if params.top_k > 0:
            ordered[:, params.top_k :] = 0
        if params.top_p < 1:
            # The smallest set that reaches top_p: a token stays while those before it have not reached it.
            before = ordered.cumsum(-1) - ordered
            ordered = ordered.where(before < params.top_p * ordered.sum(-1, keepdim=True), 0)
        probs = torch.zeros_like(probs).scatter_(-1, order, ordered)
    return probs


def _inverse_cdf(probs: Tensor, uniforms: Tensor) -> Tensor:
    """Draw one index a row [N] from unnormalised probabilities [N, V] by one uniform number each [N]."""
    cdf = probs.cumsum(-1)
    # Below the total in float32 too, so the index found has a probability above zero.
    wanted = torch.minimum(uniforms * cdf[:, -1], cdf[:, -1].nextafter(torch.zeros(())))
    return torch.searchsorted(cdf, wanted[:, None], right=True)[:, 0]
