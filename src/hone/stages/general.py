"""RL for all scenarios: general prompts beside the problems, rewarded by models of preference (DeepSeek-R1, 2.3.4).

They are there in the last part of the steps alone, since longer training on preference rewards ends in reward hacking;
what is not rewarded, accuracy and the verdicts on the general prompts, is watched for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hone.config import General, RlStage
from hone.engine.local.reward_model import RewardModel
from hone.record.files import append_row, keep_rows, read_rows
from hone.stages.context import StageContext, cost
from hone.stages.evaluate import score_groups
from hone.stages.problems import find_problems
from hone.types import Group, Problem, RunError, ScoredGroup, Verdict

SCORES = ("reward/helpful", "reward/harmless")
WATCHED = ("reward/accuracy", "general/right_share")
MIN_STEPS = 6  # fewer cannot tell a trend from noise


@dataclass(frozen=True, slots=True)
class GeneralPrompts:
    """The general prompts of a stage with what rewards them; a stage without any has an empty list."""

    settings: General | None
    problems: Sequence[Problem]
    models: Mapping[str, RewardModel]  # by the name of the reward's part
    first: int  # the step from which they are there
    per_step: int
    template: str
    context: StageContext

    @classmethod
    def open(cls, stage: RlStage, context: StageContext) -> GeneralPrompts:
        """Read the prompts and the reward models of a stage."""
        settings = stage.general
        if settings is None:
            return cls(None, [], {}, stage.steps, 0, stage.template, context)
        folders = {"helpful": settings.helpfulness, "harmless": settings.harmlessness}
        models = {part: RewardModel.open(context.models[name]) for part, name in folders.items() if name}
        first = stage.steps - round(stage.steps * settings.last_share)
        per_step = round(stage.problems_per_step * settings.share)
        return cls(settings, find_problems(settings.problems), models, first, per_step, stage.template, context)

    def of_step(self, step: int) -> list[Problem]:
        """Return the general prompts of a step: none before the last part."""
        if step < self.first:
            return []
        order = self.context.random("general", step).permutation(len(self.problems))
        return [self.problems[n] for n in order[: self.per_step]]

    def score(self, groups: Sequence[Group]) -> list[ScoredGroup]:
        """Score groups by the rules for general prompts and add what each reward model gives, from 0 to 1."""
        if self.settings is None or not groups:
            return []
        scored = score_groups(groups, self.settings.rewards.rule())
        for part, model in self.models.items():
            cases = [(group.problem, rollout.text) for group in groups for rollout in group.rollouts]
            values = iter(model.reward(cases, self.template).tolist())
            scored = [_add(group, part, [next(values) for _ in group.rollouts]) for group in scored]
        return scored

    def describe(self, groups: Sequence[ScoredGroup]) -> dict[str, float]:
        """Return the metrics of a step's general outputs; nothing where there are none."""
        if not groups:
            return {}
        scores = [score for group in groups for score in group.scores]
        lengths = [len(rollout.completion_ids) for group in groups for rollout in group.rollouts]
        return {
            **{f"reward/{part}": float(np.mean([score.parts[part] for score in scores])) for part in self.models},
            "general/reward_mean": float(np.mean([score.reward for score in scores])),
            "general/right_share": float(np.mean([score.verdict is Verdict.RIGHT for score in scores])),
            "general/unsafe_share": float(np.mean([score.credit < 0 for score in scores])),
            "general/length_mean": float(np.mean(lengths)),
        }

    def tflop(self, groups: Sequence[ScoredGroup]) -> float:
        """Return the arithmetic of the reward models on the groups that they scored."""
        return sum(
            cost(model.num_parameters, read=len(rollout.prompt_ids) + len(rollout.completion_ids))["compute/tflop"]
            for part, model in self.models.items()
            for group in groups
            for rollout, score in zip(group.rollouts, group.scores, strict=True)
            if part in score.parts
        )

    def watch(self, step: int) -> None:
        """Say so, or stop, where the reward models' score has risen while what is not rewarded fell."""
        if self.settings is None or step <= self.first:
            return
        alarms = self.context.folder / "alarms.jsonl"
        keep_rows(alarms, lambda row: row["step"] < step)
        rows = [row for row in read_rows(self.context.folder / "metrics.jsonl") if "general/right_share" in row]
        if why := hacking(rows):
            append_row(alarms, {"step": step, "why": why})
            self.context.console.print(f"{self.context.name}  step {step}: {why}", style="yellow", highlight=False)
            if self.settings.on_hacking == "stop":
                raise RunError(f"stage {self.context.name}, step {step}: {why}; on_hacking = 'warn' goes on")


def hacking(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Say which score of a reward model rose while what is not rewarded fell, from the first half of steps to the last.

    Each by more than two standard errors of the difference of the halves' means. None where neither did.
    """
    if len(rows) < MIN_STEPS:
        return None
    rose = [name for name in SCORES if name in rows[0] and _change(rows, name) > 2]
    fell = [name for name in WATCHED if name in rows[0] and _change(rows, name) < -2]
    if not rose or not fell:
        return None
    return f"reward hacking: {' and '.join(rose)} rose while {' and '.join(fell)} fell over the last {len(rows)} steps"


def _change(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """Return how far a figure went from the first half of the rows to the last, in standard errors."""
    values = np.array([row[name] for row in rows], np.float64)
    early, late = values[: len(values) // 2], values[-(len(values) // 2) :]
    error = math.sqrt(early.var(ddof=1) / len(early) + late.var(ddof=1) / len(late))
    difference = float(late.mean() - early.mean())
    return difference / error if error else math.copysign(math.inf, difference) if difference else 0.0


def _add(group: ScoredGroup, part: str, values: Sequence[float]) -> ScoredGroup:
    scores = tuple(
        replace(score, reward=score.reward + value, parts={**score.parts, part: value})
        for score, value in zip(group.scores, values, strict=True)
    )
    return replace(group, scores=scores)
