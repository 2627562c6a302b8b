"""Group Relative Policy Optimization: R1-Zero and every RL stage of R1 are this loop with other tasks and rewards.

The loop follows DeepSeek-R1, section 2.2: sample a group of outputs for each question from the policy, score them by
rule, compare each with its group, step. It knows verbs of an engine, not what is behind them.

Axes: P problems of a step, G outputs of a group, N outputs of a step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hone.algo.advantages import group_advantages, has_signal
from hone.algo.losses import clipped, kl_k3, policy_loss
from hone.algo.packing import pack, token_weight
from hone.config import RlStage
from hone.engine.base import Engine, TokenBatch
from hone.engine.local.engine import LocalEngine
from hone.engine.opening import open_engine
from hone.record.files import append_row
from hone.record.generations import write_batch, write_generations
from hone.rewards.behaviour import measure
from hone.rewards.format import split_completion
from hone.rewards.language import language_consistency
from hone.stages.context import StageContext, cost, learning_rate
from hone.stages.evaluate import HeldOut, check_scorable, sample_groups, score_groups
from hone.stages.general import GeneralPrompts
from hone.stages.judge import install
from hone.stages.preflight import require_preflight
from hone.stages.problems import find_problems
from hone.types import Floats, Group, HoneError, PackedBatch, Problem, Rollout, RunError, Sample, ScoredGroup, Verdict


@dataclass(frozen=True, slots=True)
class GrpoLoss:
    """The token loss of GRPO: the clipped ratio and the KL penalty against the reference (DeepSeek-R1, equation 1)."""

    clip_low: float
    clip_high: float
    kl_coef: float = 0.0

    def __call__(self, logprobs: Tensor, batch: TokenBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
        assert batch.old_logprobs is not None
        ratio_terms = (logprobs, batch.old_logprobs, batch.advantages, self.clip_low, self.clip_high)
        loss = policy_loss(*ratio_terms)
        # The sampler's policy against the trainer's; before the first update of a step they have the same weights.
        gap = kl_k3(batch.old_logprobs, logprobs)
        figures = {"policy/clip_share": clipped(*ratio_terms), "sampler/mismatch_kl": gap}
        if batch.ref_logprobs is not None:
            figures["policy/kl"] = kl_k3(logprobs, batch.ref_logprobs)
            loss = loss + self.kl_coef * figures["policy/kl"]
        return loss, figures


def run(stage: RlStage, context: StageContext) -> None:
    """Train by GRPO; write the model, a row of metrics a step, held-out evaluations and some groups of each step."""
    engine, first = context.open(stage, lambda trainer: open_engine(context.models[stage.start_from], trainer=trainer))
    install(stage.judge, context)
    questions = _Questions(stage, context)
    general = GeneralPrompts.open(stage, context)
    if first == 0:
        require_preflight(stage, context.folder / "preflight.json", context.console)
    held_out = HeldOut(stage.evaluation, stage.sampling, stage.template, context, stage.steps)
    seen: dict[str, float] = {}
    with context.progress(stage.steps) as progress:
        if first == 0:
            seen = held_out.after(0, engine) or seen
        for step in range(first, stage.steps):
            clock = Clock()
            if stage.kl_coef and step % (stage.reference_every or stage.steps) == 0:
                engine.keep_reference()
            open_P = general.of_step(step)  # none but in the last part of RL for all scenarios
            ruled_P = questions.of_step(step)[: stage.problems_per_step - len(open_P)]
            groups_P = _rollout(engine, [*ruled_P, *open_P], stage, context.draw_seed("sample", step))
            clock.lap("rollout")
            scored_P = _resample(_score(groups_P[: len(ruled_P)], stage), engine, questions, stage, context, step)
            general_P = general.score(groups_P[len(ruled_P) :])
            outputs_N = [output for group in (*scored_P, *general_P) for output in _outputs(group, stage)]
            clock.lap("reward")
            updates = []
            for number, chosen in enumerate(_mini_batches(outputs_N, stage, context.random("mini-batches", step))):
                batch = _pack(engine, chosen, stage)
                rate = learning_rate(
                    stage.optimizer, step * stage.updates_per_step + number, stage.steps * stage.updates_per_step
                )
                updates.append((batch, _update(engine, batch, stage, rate, context, step)))
            checksum = engine.publish()
            clock.lap("train")

            done = step + 1
            figures = _describe(scored_P, updates, clock)
            costs = _costs([*scored_P, *general_P], updates, clock, engine, general)
            row = {"step": done, **figures, **general.describe(general_P), **costs, "weights": checksum}
            append_row(context.folder / "metrics.jsonl", row)
            _store([*scored_P[: stage.store_groups], *general_P[: stage.store_groups]], stage, context, done)
            _check_scorable([*scored_P, *general_P], stage, done)
            general.watch(done)
            seen = held_out.after(done, engine) or seen
            if done % stage.checkpoint_every == 0 or done == stage.steps:
                context.save_resume(engine, done)
            shown = {"pass@1": seen["pass_at_1"]} if seen else {}
            progress.update(done, reward=figures["reward/mean"], length=figures["completion/length_mean"], **shown)
    context.save_model(engine)


@dataclass(frozen=True, slots=True)
class Output:
    """One rollout with what the loss needs of its score."""

    rollout: Rollout
    advantage: float
    scorable: bool


class Clock:
    """Seconds since the last lap, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now


class _Questions:
    """The training problems in shuffled epochs; any step's can be asked for without those before it."""

    def __init__(self, stage: RlStage, context: StageContext) -> None:
        self.problems = find_problems(stage.problems)
        if len(self.problems) < stage.problems_per_step:
            raise HoneError(
                f"stage {stage.name}: {len(self.problems)} problems are fewer than "
                f"problems_per_step = {stage.problems_per_step}"
            )
        self.per_step, self.context = stage.problems_per_step, context

    def of_step(self, step: int) -> list[Problem]:
        steps_per_epoch = len(self.problems) // self.per_step
        epoch, place = divmod(step, steps_per_epoch)
        order = self.context.random("epoch", epoch).permutation(len(self.problems))
        return [self.problems[i] for i in order[place * self.per_step : (place + 1) * self.per_step]]

    def spare(self, count: int, rng: np.random.Generator) -> list[Problem]:
        return [self.problems[i] for i in rng.permutation(len(self.problems))[:count]]


def _rollout(engine: LocalEngine, problems: Sequence[Problem], stage: RlStage, seed: int) -> list[Group]:
    """Sample a group of outputs for each problem."""
    return sample_groups(engine, problems, stage.sampling, template=stage.template, samples=stage.group_size, seed=seed)


def _score(groups: Sequence[Group], stage: RlStage) -> list[ScoredGroup]:
    """Score each output by rule; an overlong one as the recipe says."""
    scored = score_groups(groups, stage.rewards.rule())
    if stage.overlong != "penalise":
        return scored
    return [
        replace(
            group,
            scores=tuple(
                replace(score, reward=score.reward - 1, parts={**score.parts, "overlong": -1.0})
                if rollout.finish_reason == "length"
                else score
                for rollout, score in zip(group.rollouts, group.scores, strict=True)
            ),
        )
        for group in scored
    ]


def _scorable(group: ScoredGroup, stage: RlStage) -> NDArray[np.bool_]:
    """Say of each output [G] whether it takes part: it could be judged, and is not masked for being overlong."""
    masked = stage.overlong == "mask"
    return np.array(
        [
            score.verdict is not Verdict.UNSCORABLE and not (masked and rollout.finish_reason == "length")
            for rollout, score in zip(group.rollouts, group.scores, strict=True)
        ]
    )


def _rewards(group: ScoredGroup) -> Floats:
    return np.array([score.reward for score in group.scores], np.float32)


def _resample(
    groups: list[ScoredGroup],
    engine: LocalEngine,
    questions: _Questions,
    stage: RlStage,
    context: StageContext,
    step: int,
) -> list[ScoredGroup]:
    """Replace groups without signal by groups of other problems, as often as the recipe says (DAPO, section 3.2)."""
    for attempt in range(stage.resample):
        flat = [n for n, group in enumerate(groups) if not has_signal(_rewards(group), _scorable(group, stage))]
        if not flat:
            break
        problems = questions.spare(len(flat), context.random("spare", step, attempt))
        fresh = _rollout(engine, problems, stage, context.draw_seed("resample", step, attempt))
        for n, group in zip(flat, _score(fresh, stage), strict=True):
            groups[n] = group
    return groups


def _outputs(group: ScoredGroup, stage: RlStage) -> list[Output]:
    """Compare the outputs of a group with each other."""
    scorable = _scorable(group, stage)
    advantages = group_advantages(_rewards(group), scorable, divide_by_std=stage.divide_by_std)
    return [
        Output(rollout, float(advantage), bool(judged))
        for rollout, advantage, judged in zip(group.rollouts, advantages, scorable, strict=True)
    ]


def _mini_batches(outputs: Sequence[Output], stage: RlStage, rng: np.random.Generator) -> Iterator[list[Output]]:
    """Split the outputs of a step at random into equal mini-batches."""
    for chosen in np.split(rng.permutation(len(outputs)), stage.updates_per_step):
        yield [outputs[n] for n in chosen]


def _pack(engine: Engine, outputs: Sequence[Output], stage: RlStage) -> PackedBatch:
    """Pack one mini-batch. Outputs without an advantage are left out where they would add exactly nothing.

    They still count in what the loss is averaged over. With a KL penalty they stay, for it pulls on them too.
    """
    scorable = [output for output in outputs if output.scorable]
    samples = [
        Sample(
            prompt_ids=output.rollout.prompt_ids,
            completion_ids=output.rollout.completion_ids,
            advantage=output.advantage,
            old_logprobs=output.rollout.sampler_logprobs,
        )
        for output in scorable
        if output.advantage or stage.kl_coef
    ]
    if stage.kl_coef:
        found = engine.ref_logprobs(samples, temperature=stage.sampling.temperature)
        samples = [replace(sample, ref_logprobs=ref) for sample, ref in zip(samples, found, strict=True)]
    num_tokens = sum(len(output.rollout.completion_ids) for output in scorable)
    weights = [
        token_weight(
            sample, stage.aggregation,
            num_outputs=len(scorable), num_tokens=num_tokens, max_tokens=stage.sampling.max_tokens,
        )
        for sample in samples
    ]  # fmt: skip
    return pack(samples, weights, micro_batch_tokens=stage.optimizer.micro_batch_tokens)


def _update(
    engine: Engine, batch: PackedBatch, stage: RlStage, rate: float, context: StageContext, step: int
) -> dict[str, float]:
    """Take one optimizer step. Where the loss or a gradient is not finite, keep the batch for replay and stop."""
    loss = GrpoLoss(stage.clip_low, stage.clip_high, stage.kl_coef)
    try:
        figures = engine.forward_backward(batch, loss, temperature=stage.sampling.temperature)
        return {**figures, "policy/grad_norm": engine.optim_step(rate), "learning_rate": rate}
    except RunError as error:
        file = context.folder / f"failed-step-{step + 1:06d}.npz"
        write_batch(file, batch)
        raise RunError(
            f"stage {context.name}, step {step + 1}: {error}; the batch is in {file}, the weights before it in "
            f"{context.resume}; a lower optimizer.learning_rate is the usual mend"
        ) from error


def _describe(
    groups: Sequence[ScoredGroup], updates: Sequence[tuple[PackedBatch, Mapping[str, float]]], clock: Clock
) -> dict[str, float]:
    """Return the metrics of one step; those of outputs are of problems that rules judge."""
    pairs = [
        (group.problem, rollout, score)
        for group in groups
        for rollout, score in zip(group.rollouts, group.scores, strict=True)
    ]
    behaviours = [measure(problem, rollout.text) for problem, rollout, _ in pairs]
    languages = [
        language_consistency(split_completion(rollout.text).think, problem.language) for problem, rollout, _ in pairs
    ]
    parts = {name for _, _, score in pairs for name in score.parts}
    lengths = np.array([len(rollout.completion_ids) for _, rollout, _ in pairs])
    finished = np.array([rollout.finish_reason == "stop" for _, rollout, _ in pairs])
    right_P = [np.mean([score.verdict is Verdict.RIGHT for score in group.scores]) for group in groups]
    flat_P = [len({score.reward for score in group.scores}) == 1 for group in groups]
    trained = [(batch.num_loss_tokens, figures) for batch, figures in updates if batch.num_loss_tokens]
    names = dict.fromkeys(name for _, figures in trained for name in figures)
    policy = {
        name: float(np.average([f[name] for _, f in trained], weights=[tokens for tokens, _ in trained]))
        for name in names
        if name != "sampler/mismatch_kl"
    }
    return {
        "reward/mean": float(np.mean([score.reward for _, _, score in pairs])),
        **{f"reward/{name}": _mean([score.parts.get(name, 0.0) for _, _, score in pairs]) for name in sorted(parts)},
        "completion/length_mean": float(lengths.mean()),
        "completion/length_finished_mean": _mean(lengths[finished]),
        "completion/truncated_share": float(1 - finished.mean()),
        "completion/repetition_share": _mean([behaviour.repetition for behaviour in behaviours]),
        "completion/loop_share": _mean([behaviour.loops for behaviour in behaviours]),
        "completion/longest_paragraph_mean": _mean([behaviour.longest_paragraph for behaviour in behaviours]),
        "completion/code_block_share": _mean([behaviour.code_blocks > 0 for behaviour in behaviours]),
        "behaviour/tries_mean": _mean([behaviour.tries for behaviour in behaviours]),
        "behaviour/reflection_rate": _mean([behaviour.reflects for behaviour in behaviours]),
        "behaviour/verification_rate": _mean([behaviour.verifies for behaviour in behaviours]),
        "language/consistency": _mean([share for share in languages if share is not None]),
        **policy,
        "sampler/mismatch_kl": trained[0][1]["sampler/mismatch_kl"] if trained else 0.0,
        "groups/all_right_share": float(np.mean([share == 1 for share in right_P])),
        "groups/all_wrong_share": float(np.mean([share == 0 for share in right_P])),
        "groups/no_signal_share": float(np.mean(flat_P)),
        "verdict/unscorable_share": _mean([score.verdict is Verdict.UNSCORABLE for _, _, score in pairs]),
        **{f"time/{name}_s": seconds for name, seconds in clock.seconds.items()},
    }


def _costs(
    groups: Sequence[ScoredGroup], updates: Sequence[tuple[PackedBatch, Mapping[str, float]]], clock: Clock,
    engine: LocalEngine, general: GeneralPrompts,
) -> dict[str, float]:  # fmt: skip
    """Return what a step cost: tokens, arithmetic, tokens a second."""
    sampled = sum(len(rollout.completion_ids) for group in groups for rollout in group.rollouts)
    trained = sum(batch.num_tokens for batch, _ in updates)
    read = trained if engine.reference else 0
    costs = cost(engine.num_parameters, sampled=sampled, trained=trained, read=read, num_frozen=engine.num_frozen)
    return {
        **costs,
        "compute/tflop": costs["compute/tflop"] + general.tflop(groups),
        "throughput/rollout_tokens_per_s": sampled / clock.seconds["rollout"],
        "throughput/train_tokens_per_s": trained / clock.seconds["train"],
    }


def _mean(values: Sequence[float] | NDArray[np.int64]) -> float:
    """Return the mean; 0 of nothing."""
    return float(np.mean(values)) if len(values) else 0.0


def _check_scorable(groups: Sequence[ScoredGroup], stage: RlStage, step: int) -> None:
    scores = [score for group in groups for score in group.scores]
    whys = [score.why for score in scores if score.verdict is Verdict.UNSCORABLE]
    check_scorable(whys, len(scores), stage.max_unscorable_share, f"stage {stage.name}, step {step}")


def _store(groups: Sequence[ScoredGroup], stage: RlStage, context: StageContext, step: int) -> None:
    """Keep a few groups of a step for the report."""
    if groups:
        advantages = [np.array([output.advantage for output in _outputs(group, stage)]) for group in groups]
        file = context.folder / "rollouts" / f"step-{step:06d}.parquet"
        write_generations(file, groups, step=step, model=stage.name, advantages=advantages)
