"""Which curves a report shows, and what a reader should look for in each. Knows metric names; draws nothing itself.

A chart is left out where none of its metrics was recorded, so one list serves every kind of training stage.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Row = dict[str, Any]
Item = TypeVar("Item")
MAX_BUDGET_CURVES = 7
MODEL_COLOURS = ("blue", "amber", "violet", "teal", "pink", "red")


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a chart: a training metric, or a figure of the held-out evaluations (drawn with markers)."""

    name: str
    key: str
    colour: str
    held_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Curves over steps. `section` says whether they show the model or its optimisation.

    Metrics that begin with `others` and are in no chart are drawn too: rewards have names of the user's own.
    """

    title: str
    caption: str
    curves: tuple[Curve, ...]
    section: Literal["model", "optimisation"] = "model"
    axis: Literal["number", "share", "log"] = "number"
    stacked: bool = False
    others: str | None = None


CHARTS = (
    Chart(
        title="Accuracy and reward",
        caption="Held-out accuracy should climb with the reward; where only the reward climbs, it is being gamed. "
        "The band is a 95% interval.",
        curves=(
            Curve("held-out pass@1", "pass_at_1", "blue", held_out=True),
            Curve("training reward", "reward/mean", "amber"),
        ),
    ),
    Chart(
        title="Completion length",
        caption="Tokens an answer. Growth that nobody asked for is what R1-Zero is known for; a fall means that "
        "brevity pays.",
        curves=(
            Curve("held-out", "completion_length_mean", "blue", held_out=True),
            Curve("training", "completion/length_mean", "amber"),
        ),
    ),
    Chart(
        title="Reflection and verification",
        caption="The share of outputs that back up and try again, and of those that check before they answer.",
        curves=(
            Curve("reflection", "behaviour/reflection_rate", "violet"),
            Curve("verification", "behaviour/verification_rate", "teal"),
        ),
        axis="share",
    ),
    Chart(
        title="Tries a problem",
        caption="How many attempts a held-out answer makes on average: more of them is search made visible.",
        curves=(Curve("held-out", "tries_mean", "blue", held_out=True),),
    ),
    Chart(
        title="Language consistency",
        caption="The share of words in the language of the question. A fall is the mixing that R1-Zero is known for.",
        curves=(
            Curve("held-out", "language_consistency", "blue", held_out=True),
            Curve("training", "language/consistency", "amber"),
        ),
        axis="share",
    ),
    Chart(
        title="Cut, repeated, unscorable",
        caption="All should stay low: answers that hit the token limit, text that says itself again, answers that end "
        "in a loop, verdicts that could not be given.",
        curves=(
            Curve("truncated", "completion/truncated_share", "red"),
            Curve("repeated", "completion/repetition_share", "pink"),
            Curve("in a loop", "completion/loop_share", "violet"),
            Curve("unscorable", "verdict/unscorable_share", "grey"),
        ),
        axis="share",
    ),
    Chart(
        title="Reward by part",
        caption="What the reward is made of. Format is usually learned first, accuracy after it.",
        curves=(
            Curve("accuracy", "reward/accuracy", "blue"),
            Curve("format", "reward/format", "amber"),
            Curve("language", "reward/language", "pink"),
        ),
        others="reward/",
    ),
    Chart(
        title="General prompts",
        caption="Scores of the reward models beside the verdicts of a rubric or a judge, which are not rewarded. "
        "Scores that rise while the verdicts fall are reward hacking.",
        curves=(
            Curve("helpful", "reward/helpful", "blue"),
            Curve("harmless", "reward/harmless", "teal"),
            Curve("answers right", "general/right_share", "amber"),
        ),
    ),
    Chart(
        title="Groups without signal",
        caption="Groups whose outputs are all right or all wrong teach nothing. Best when both stay low.",
        curves=(
            Curve("all right", "groups/all_right_share", "teal"),
            Curve("all wrong", "groups/all_wrong_share", "red"),
        ),
        axis="share",
    ),
    Chart(
        title="Loss",
        caption="Supervised: should fall fast, then level off. In RL it stays near zero and says little. A jump "
        "upwards is an unstable step.",
        curves=(Curve("training loss", "loss", "amber"),),
    ),
    Chart(
        title="Ranked right",
        caption="The share of training pairs, or responses, that the reward model tells apart. Half is a coin.",
        curves=(Curve("accuracy", "accuracy", "blue"),),
        axis="share",
    ),
    Chart(
        section="optimisation",
        title="Entropy",
        caption="How undecided the policy is, in nats a token. A collapse to 0 ends exploration.",
        curves=(Curve("entropy", "policy/entropy", "amber"),),
    ),
    Chart(
        section="optimisation",
        title="KL to the reference",
        caption="How far the policy has moved. A slow rise is healthy.",
        curves=(Curve("KL", "policy/kl", "amber"),),
    ),
    Chart(
        section="optimisation",
        title="Clipped tokens",
        caption="The share of tokens whose ratio hit the clip. More than a few percent: the steps are large.",
        curves=(Curve("clipped", "policy/clip_share", "amber"),),
        axis="share",
    ),
    Chart(
        section="optimisation",
        title="Gradient norm",
        caption="Before clipping. Spikes are worth a look; steady is good.",
        curves=(Curve("gradient norm", "policy/grad_norm", "amber"),),
    ),
    Chart(
        section="optimisation",
        title="Sampler against trainer",
        caption="KL between the two, on a log scale. Should be tiny: they must be the same policy.",
        curves=(Curve("mismatch KL", "sampler/mismatch_kl", "amber"),),
        axis="log",
    ),
    Chart(
        section="optimisation",
        title="Learning rate",
        caption="The schedule that was followed.",
        curves=(Curve("learning rate", "learning_rate", "amber"),),
    ),
    Chart(
        section="optimisation",
        title="Seconds a step",
        caption="Where the time goes. Longer answers show up as rollout time.",
        curves=(
            Curve("rollout", "time/rollout_s", "blue"),
            Curve("reward", "time/reward_s", "teal"),
            Curve("train", "time/train_s", "amber"),
        ),
        stacked=True,
    ),
    Chart(
        section="optimisation",
        title="Tokens a second",
        caption="Speed of sampling and of training.",
        curves=(
            Curve("rollout", "throughput/rollout_tokens_per_s", "blue"),
            Curve("train", "throughput/train_tokens_per_s", "amber"),
        ),
    ),
)


def training_charts(metrics: Sequence[Row], evaluations: Sequence[Row], num_points: int) -> list[Row]:
    """Return the charts that a stage has data for, each curve with at most `num_points` points."""
    metrics = evenly(metrics, num_points)
    drawn = []
    for chart in CHARTS:
        named = (*chart.curves, *_others(chart, metrics))
        curves = [_curve(curve, evaluations if curve.held_out else metrics) for curve in named]
        if curves := [curve for curve in curves if curve["x"]]:
            drawn.append(
                {
                    "title": chart.title,
                    "caption": chart.caption,
                    "section": chart.section,
                    "axis": chart.axis,
                    "stacked": chart.stacked,
                    "x_title": "step",
                    "curves": curves,
                }
            )
    return drawn


def budget_chart(benchmark: str, models: Sequence[Row]) -> Row | None:
    """Return accuracy against token budget for the models of one benchmark; None where no model has that curve.

    Of many models only the base and those with a name in the paper are drawn.
    """
    coloured = list(zip(model_colours(models), models, strict=True))
    if len(models) > MAX_BUDGET_CURVES:
        coloured = [(c, model) for c, model in coloured if model["stage"] == "base" or model.get("title")]
    curves = []
    for colour, model in coloured[:MAX_BUDGET_CURVES]:
        rows = model.get("budget_curve") or []
        curve = _curve(
            Curve(model.get("title") or model["stage"], "pass_at_1", colour, held_out=True), rows, x="tokens"
        )
        curves += [curve] if curve["x"] else []
    if not curves:
        return None
    return {
        "title": benchmark,
        "caption": "Each answer is cut after so many tokens. A line that keeps rising to the right is that of a model "
        "that puts a longer chain of thought to use. Bands are 95% intervals.",
        "section": "budget",
        "axis": "number",
        "stacked": False,
        "x_title": "tokens an answer may use",
        "ticks": sorted({x for curve in curves for x in curve["x"]}),
        "curves": curves,
    }


def model_colours(models: Sequence[Row]) -> list[str]:
    """Give every model a colour of its own: the base model grey, the run's own result blue, as in the hero.

    Of more models than colours, those with a name in the paper get them.
    """
    trained = [model for model in models if model["stage"] != "base"]
    if len(trained) > len(MODEL_COLOURS):
        trained = [model for model in trained if model.get("title")] or trained
    order = sorted(trained, key=lambda model: model is not main_model(models))
    colours = {model["stage"]: MODEL_COLOURS[i % len(MODEL_COLOURS)] for i, model in enumerate(order)}
    return [colours.get(model["stage"], "grey") for model in models]


def main_model(models: Sequence[Row]) -> Row:
    """Return what the run was made for: the model that the recipe calls R1, or else the last."""
    return next((model for model in models if model.get("title") == "R1"), models[-1])


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """Return at most `count` items, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    if count == 1:
        return [items[-1]]
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def finite(value: Any) -> float | None:
    """Return a number short enough to embed; None for what is missing, NaN or infinite."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")


def _others(chart: Chart, metrics: Sequence[Row]) -> list[Curve]:
    """Return a curve for each metric that the chart takes besides its own."""
    if chart.others is None:
        return []
    drawn = {curve.key for one in CHARTS for curve in one.curves}
    keys = dict.fromkeys(key for row in metrics for key in row if key.startswith(chart.others) and key not in drawn)
    return [
        Curve(key.removeprefix(chart.others), key, colour)
        for key, colour in zip(keys, itertools.cycle(reversed(MODEL_COLOURS)), strict=False)
    ]


def _curve(curve: Curve, rows: Iterable[Row], x: str = "step") -> Row:
    points = [row for row in rows if finite(row.get(curve.key)) is not None]
    drawn: Row = {
        "name": curve.name,
        "colour": curve.colour,
        "markers": curve.held_out,
        "x": [row[x] for row in points],
        "y": [finite(row[curve.key]) for row in points],
    }
    bands = [row[f"{curve.key}_ci95"] for row in points if row.get(f"{curve.key}_ci95")]
    if points and len(bands) == len(points):
        drawn |= {"low": [finite(band[0]) for band in bands], "high": [finite(band[1]) for band in bands]}
    return drawn
