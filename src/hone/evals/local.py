"""A model of this machine as the source of outputs."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from itertools import groupby

from hone.engine.local.engine import LocalEngine
from hone.engine.opening import open_engine
from hone.evals.outputs import Decoding, Output, Wanted
from hone.models.folders import find_model
from hone.models.loading import checksum
from hone.types import HoneError, Message, Problem, Prompt, SamplingParams


class LocalModel:
    """Implements `Source` by an engine of this process; what an output's seed draws depends on nothing else."""

    def __init__(self, model: str) -> None:
        self.model = model
        self._engine: LocalEngine = open_engine(find_model(model))
        self.model_hash = checksum(self._engine.model)

    def fitted(self, problems: Sequence[Problem], decoding: Decoding) -> Decoding:
        """Return the decoding with outputs no longer than the model's positions leave after the longest prompt."""
        longest = max(len(self._encode(problem.messages, decoding.template)) for problem in problems)
        room = self._engine.num_positions - longest
        if room < 1:
            raise HoneError(
                f"model {self.model}: it has {self._engine.num_positions} positions, and the longest prompt has "
                f"{longest} tokens: no room for an output"
            )
        return replace(decoding, max_tokens=min(decoding.max_tokens, room))

    def generate(self, wanted: Sequence[Wanted], decoding: Decoding) -> Generator[Output]:
        groups = [list(group) for _, group in groupby(wanted, key=lambda one: one.problem_id)]
        prompts = [
            Prompt(ids=self._encode(group[0].messages, decoding.template), num_samples=len(group)) for group in groups
        ]
        params = SamplingParams(
            max_tokens=decoding.max_tokens, temperature=decoding.temperature, top_p=decoding.top_p
        )  # fmt: skip
        for number, rollout in self._engine.stream(prompts, params, seeds=[one.seed for one in wanted]):
            one = wanted[number]
            yield Output(
                problem_id=one.problem_id,
                index=one.index,
                prompt=self._engine.tokenizer.render(one.messages, decoding.template),
                completion=rollout.text,
                finish_reason=rollout.finish_reason,
                num_tokens=len(rollout.completion_ids),
                seed=one.seed,
            )

    def _encode(self, messages: Sequence[Message], template: str) -> list[int]:
        return self._engine.tokenizer.encode(self._engine.tokenizer.render(messages, template))
