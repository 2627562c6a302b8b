"""Opens a stage's generative judge: a server, or a model that is run here."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hone import config
from hone.rewards.judge import CUT, Ask, Judge, NoReply, endpoint_ask
from hone.rewards.verifiers import VERIFIERS
from hone.types import HoneError, Message, Prompt, SamplingParams

if TYPE_CHECKING:  # a server is asked without torch
    from hone.engine.local.engine import LocalEngine
    from hone.stages.context import StageContext


def install(settings: config.Judge | None, context: StageContext | None) -> None:
    """Have `settings` decide, from now on, on problems whose verifier is `judge`; None: such problems are refused."""
    VERIFIERS["judge"] = open_judge(settings, context) if settings else Judge()


def open_judge(settings: config.Judge, context: StageContext | None) -> Judge:
    """Open a judge. Without a context, as before a run, only a server can be one."""
    if settings.endpoint:
        ask = endpoint_ask(
            settings.endpoint, settings.model, max_tokens=settings.max_tokens, temperature=settings.temperature,
            parallel=settings.parallel, timeout=settings.timeout,
        )  # fmt: skip
        return Judge(ask)
    if context is None:
        raise HoneError(f"judge {settings.model}: without an endpoint it is opened by the run, so only a run can judge")
    from hone.engine.opening import open_engine

    return Judge(_local_ask(open_engine(context.models[settings.model]), settings, context))


def _local_ask(engine: LocalEngine, settings: config.Judge, context: StageContext) -> Ask:
    """Return what asks a model of this process. Its draws follow from the prompts: a resumed stage repeats them."""
    tokenizer, positions = engine.tokenizer, engine.num_positions
    params = SamplingParams(max_tokens=settings.max_tokens, temperature=settings.temperature)
    room = positions - settings.max_tokens
    if room <= 0:
        raise HoneError(
            f"judge {settings.model}: it has {positions} positions, so max_tokens = {settings.max_tokens} leaves no "
            "room for what is judged; lower judge.max_tokens"
        )
    one_at_a_time = threading.Lock()  # the preflight asks from several threads

    def ask(prompts: Sequence[str]) -> list[str | NoReply]:
        encoded = [tokenizer.encode(tokenizer.render((Message(role="user", content=text),))) for text in prompts]
        fitting = [number for number, ids in enumerate(encoded) if len(ids) <= room]
        replies: list[str | NoReply] = [NoReply("what is judged is too long for the judge")] * len(prompts)
        if not fitting:
            return replies
        with one_at_a_time:
            sampled = engine.sample(
                [Prompt(ids=encoded[number]) for number in fitting], params, seed=context.draw_seed("judge", *prompts)
            )
        for number, (rollout,) in zip(fitting, sampled, strict=True):
            replies[number] = rollout.text if rollout.finish_reason == "stop" else NoReply(CUT)
        return replies

    return ask
