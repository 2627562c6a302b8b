"""Held-out evaluation: sample every problem a few times, judge, and give each figure with its 95% interval."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from hone.config import EvaluateStage, Evaluation, Sampling, Shot
from hone.engine.local.engine import LocalEngine
from hone.engine.opening import open_engine
from hone.evals.scores import Answered, Scores, consensus, judge
from hone.record.files import append_row, write_json
from hone.record.generations import write_generations
from hone.rewards.compose import score_all
from hone.stages.context import StageContext
from hone.stages.judge import install
from hone.stages.problems import benchmark_name, find_problems
from hone.types import Group, Message, Problem, Prompt, RewardRule, Rollout, RunError, ScoredGroup, Verified

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
    """Return the figures of an evaluation (`evals.scores`), those over problems with their 95% intervals."""
    cases = [(group.problem, _answered(rollout)) for group in groups for rollout in group.rollouts]
    verified = [Verified(score.verdict, score.why, score.credit) for group in groups for score in group.scores]
    rows = iter(judge(cases, verified))
    scores = Scores(budgets=sorted({min(budget, max_tokens) for budget in budgets}))
    for group in groups:
        found = [next(rows) for _ in group.rollouts]
        scores.add(group.problem, found, consensus=consensus(group.problem, found))
    return scores.figures()


def _answered(rollout: Rollout) -> Answered:
    cut = rollout.finish_reason == "length"
    return Answered(text=rollout.text, num_tokens=len(rollout.completion_ids), truncated=cut)


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
