"""Held-out evaluation: sample every problem a few times, judge, and give each figure with its 95% interval."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hone.config import EvaluateStage, Evaluation, Sampling, Shot
from hone.engine.local.engine import LocalEngine
from hone.engine.opening import open_engine
from hone.record.files import append_row, write_json
from hone.record.generations import write_generations
from hone.rewards.behaviour import Behaviour, measure
from hone.rewards.compose import score_all
from hone.rewards.format import split_completion
from hone.rewards.language import language_consistency
from hone.rewards.readability import has_summary
from hone.rewards.verifiers import answer_key, verify_all
from hone.stages.context import StageContext
from hone.stages.judge import install
from hone.stages.problems import benchmark_name, find_problems
from hone.types import Group, Message, Problem, Prompt, RewardRule, Rollout, RunError, Score, ScoredGroup, Verdict

_RULE = RewardRule()


def run(stage: EvaluateStage, context: StageContext) -> None:
    """Evaluate each model in turn; write `results.json` and every generation."""
    install(stage.judge, context)
    problems = find_problems(stage.problems)
    write_json(context.folder / "results.json", [_evaluate(name, problems, stage, context) for name in stage.models])


def _evaluate(name: str, problems: Sequence[Problem], stage: EvaluateStage, context: StageContext) -> dict[str, Any]:
    """Evaluate one model; take up its figures where it was done before the stage was interrupted."""
    file = name.replace("/", "--")
    done = context.folder / "models" / f"{file}.json"
    if done.is_file():
        return json.loads(done.read_text("utf-8"))  # type: ignore[no-any-return]
    engine = open_engine(context.models[name])
    with context.progress(len(problems) * stage.samples) as progress:
        groups = sample_and_score(
            engine, problems, stage.sampling, template=stage.template, samples=stage.samples,
            seed=context.draw_seed("evaluate"), on_finish=progress.update,
        )  # fmt: skip
    figures = summarise(groups, stage.sampling.max_tokens, stage.budgets)
    write_generations(context.folder / "generations" / f"{file}.parquet", groups, step=0, model=name)
    context.console.print(
        f"{context.name}  {name}: pass@1 {figures['pass_at_1']:.3f} "
        f"[{figures['pass_at_1_ci95'][0]:.3f}, {figures['pass_at_1_ci95'][1]:.3f}], "
        f"length {figures['completion_length_mean']:.1f}",
        highlight=False,
    )
    result = {
        "stage": name, "benchmark": benchmark_name(stage.problems), "num_parameters": engine.num_parameters, **figures
    }  # fmt: skip
    write_json(done, result)
    return result


def sample_groups(
    engine: LocalEngine, problems: Sequence[Problem], sampling: Sampling, *, template: str, samples: int, seed: int,
    on_finish: Callable[[int], None] | None = None, shots: Sequence[Shot] = (),
) -> list[Group]:  # fmt: skip
    """Render each problem as a prompt, after worked examples in its language if any, and sample a group of outputs."""
    tokenizer = engine.tokenizer

    def shown(language: str) -> list[int]:
        return [
            token
            for shot in shots
            if shot.language == language
            for token in (
                *tokenizer.encode(tokenizer.render([Message(role="user", content=shot.prompt)], template)),
                *tokenizer.encode(shot.completion),
                tokenizer.eos_id,
            )
        ]

    asked = [
        Prompt(
            ids=[*shown(problem.language), *tokenizer.encode(tokenizer.render(problem.messages, template))],
            num_samples=samples,
        )
        for problem in problems
    ]
    grouped = engine.sample(asked, sampling.params(), seed=seed, on_finish=on_finish)
    return [Group(problem=p, rollouts=tuple(rollouts)) for p, rollouts in zip(problems, grouped, strict=True)]


def sample_and_score(
    engine: LocalEngine, problems: Sequence[Problem], sampling: Sampling, *, template: str, samples: int, seed: int,
    on_finish: Callable[[int], None] | None = None,
) -> list[ScoredGroup]:  # fmt: skip
    """Sample each problem a few times and judge every output by accuracy and format."""
    groups = sample_groups(
        engine, problems, sampling, template=template, samples=samples, seed=seed, on_finish=on_finish
    )
    return score_groups(groups, _RULE)


def score_groups(groups: Sequence[Group], rule: RewardRule) -> list[ScoredGroup]:
    """Score every output of the groups, all at once, so that verifiers' worker processes are kept busy."""
    scores = iter(score_all([(group.problem, rollout.text) for group in groups for rollout in group.rollouts], rule))
    return [
        ScoredGroup(problem=group.problem, rollouts=group.rollouts, scores=tuple(next(scores) for _ in group.rollouts))
        for group in groups
    ]


def check_scorable(whys: Sequence[str], num_verdicts: int, limit: float, where: str) -> None:
    """Stop where more of the verdicts than the share `limit` are unscorable; `whys` are the reasons of those."""
    share = len(whys) / num_verdicts
    if share > limit:
        why, count = Counter(whys).most_common(1)[0]
        raise RunError(
            f"{where}: {share:.0%} of the verdicts are unscorable, more than max_unscorable_share = {limit:.0%}; "
            f"{count} of {len(whys)} because: {why}"
        )


def summarise(groups: Sequence[ScoredGroup], max_tokens: int, budgets: Sequence[int] = ()) -> dict[str, Any]:
    """Return the figures of an evaluation, those over problems with their 95% intervals as `<name>_ci95`.

    A figure is the mean over problems of the mean over a problem's outputs. `completion_length_finished_mean` and
    `language_consistency` leave out outputs that are cut or have no words; a problem left with none does not count.
    """
    outputs = [
        [_output(group.problem, *output) for output in zip(group.rollouts, group.scores, lenient, strict=True)]
        for group, lenient in zip(groups, _lenient(groups), strict=True)
    ]

    def over_problems(value: Callable[[dict[str, Any]], float | None]) -> dict[str, Any]:
        kept = [[v for output in group if (v := value(output)) is not None] for group in outputs]
        return mean_and_interval([float(np.mean(values)) for values in kept if values])

    right = over_problems(lambda o: float(o["right"]))
    figures: dict[str, Any] = {
        "num_problems": len(groups),
        "samples": len(groups[0].rollouts),
        "pass_at_1": right["mean"],
        "pass_at_1_ci95": right["ci95"],
        "cons_at_k": mean_and_interval([v for group in groups if (v := _majority_right(group)) is not None])["mean"],
    }
    named: dict[str, Callable[[dict[str, Any]], float | None]] = {
        "lenient_pass_at_1": lambda o: o["lenient"],
        "completion_length_mean": lambda o: o["length"],
        "completion_length_finished_mean": lambda o: None if o["truncated"] else o["length"],
        "tries_mean": lambda o: o["behaviour"].tries,
        "reflection_rate": lambda o: o["behaviour"].reflects,
        "verification_rate": lambda o: o["behaviour"].verifies,
        "language_consistency": lambda o: o["language"],
        "format_share": lambda o: o["format"],
        "summary_share": lambda o: o["summary"],
        "truncated_share": lambda o: o["truncated"],
        "repetition_share": lambda o: o["behaviour"].repetition,
        "loop_share": lambda o: o["behaviour"].loops,
        "longest_paragraph_mean": lambda o: o["behaviour"].longest_paragraph,
        "code_block_share": lambda o: o["behaviour"].code_blocks > 0,
    }
    for name, value in named.items():
        found = over_problems(value)
        figures[name], figures[f"{name}_ci95"] = found["mean"], found["ci95"]
    behaviours: list[Behaviour] = [output["behaviour"] for group in outputs for output in group]
    sums = sum(behaviour.sums for behaviour in behaviours)
    figures["slip_share"] = sum(behaviour.slips for behaviour in behaviours) / sums if sums else None
    figures["budget_curve"] = []
    for budget in sorted({min(budget, max_tokens) for budget in budgets}):
        within = over_problems(lambda o, b=budget: float(o["right"] and o["length"] <= b))  # type: ignore[misc]
        figures["budget_curve"].append(
            {"tokens": budget, "pass_at_1": within["mean"], "pass_at_1_ci95": within["ci95"]}
        )
    return figures


def mean_and_interval(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean of per-problem values and its 95% interval, by the standard error over problems."""
    if not values:
        return {"mean": None, "ci95": None}
    mean = float(np.mean(values))
    error = 1.96 * float(np.std(values, ddof=1)) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return {"mean": mean, "ci95": [max(0.0, mean - error), mean + error]}  # no figure here is below zero


def _lenient(groups: Sequence[ScoredGroup]) -> list[list[Verdict]]:
    """Judge every output again with its form ignored; a program has no form but its fence, and is not run again."""
    asked = [group for group in groups if not group.problem.tests]
    cases = [(group.problem, rollout.text) for group in asked for rollout in group.rollouts]
    found = iter(verify_all(cases, lenient=True))
    return [
        [score.verdict if group.problem.tests else next(found).verdict for score in group.scores] for group in groups
    ]


def _output(problem: Problem, rollout: Rollout, score: Score, lenient: Verdict) -> dict[str, Any]:
    parts = split_completion(rollout.text)
    return {
        "right": score.verdict is Verdict.RIGHT,
        "lenient": lenient is Verdict.RIGHT,
        "length": len(rollout.completion_ids),
        "truncated": rollout.finish_reason == "length",
        "format": parts.readable or (problem.extract == "summary" and parts.direct),
        "summary": has_summary(rollout.text),
        "language": language_consistency(parts.think, problem.language),
        "behaviour": measure(problem, rollout.text),
    }


def _majority_right(group: ScoredGroup) -> float | None:
    """Return 1 where the answer given most often is right, else 0; of equally frequent ones the first counts (cons@k).

    Programs have no majority: None.
    """
    if group.problem.tests:
        return None
    keys = [answer_key(group.problem, rollout.text) for rollout in group.rollouts]
    answered = [key for key in keys if key is not None]
    if not answered:
        return 0.0
    winner = Counter(answered).most_common(1)[0][0]
    return float(group.scores[keys.index(winner)].verdict is Verdict.RIGHT)


class HeldOut:
    """The held-out evaluations while a stage trains: every N steps, and after the last."""

    def __init__(
        self, settings: Evaluation | None, sampling: Sampling, template: str, context: StageContext, num_steps: int
    ) -> None:
        self.settings, self.sampling, self.template = settings, sampling, template
        self.context, self.num_steps = context, num_steps
        self.problems = find_problems(settings.problems) if settings else []

    def after(self, step: int, engine: LocalEngine) -> dict[str, Any] | None:
        """Evaluate if it is due after this many steps; write the figures and every generation."""
        if self.settings is None or (step % self.settings.every and step != self.num_steps):
            return None
        groups = sample_and_score(
            engine, self.problems, self.sampling, template=self.template, samples=self.settings.samples,
            seed=self.context.draw_seed("held-out"),
        )  # fmt: skip
        folder = self.context.folder
        write_generations(
            folder / "evaluations" / f"step-{step:06d}.parquet", groups, step=step, model=self.context.name
        )
        figures = summarise(groups, self.sampling.max_tokens)
        append_row(folder / "evaluations.jsonl", {"step": step, **figures})
        return figures
