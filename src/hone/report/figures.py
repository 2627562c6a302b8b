"""The figures of the models: which stand in the tables, and what a report puts first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hone.report.charts import Row, budget_chart, main_model, model_colours

HERO_LADDER = 7  # models at most


@dataclass(frozen=True, slots=True)
class Figure:
    """A column of the models' table; those of `hero` also stand at the top. Shares are written as percentages."""

    key: str
    label: str
    unit: Literal["score", "mean", "share"]
    meaning: str
    hero: bool = False


FIGURES = (
    Figure("pass_at_1", "pass@1", "score", "share of single answers that are right", hero=True),
    Figure("cons_at_k", "cons@k", "score", "problems whose majority vote is right", hero=True),
    Figure("lenient_pass_at_1", "lenient", "score", "pass@1 with the form of the answer ignored"),
    Figure("completion_length_mean", "tokens", "mean", "mean length of an answer", hero=True),
    Figure("completion_length_finished_mean", "finished", "mean", "mean length of the answers that were not cut"),
    Figure("tries_mean", "tries", "mean", "attempts an answer makes", hero=True),
    Figure("reflection_rate", "reflects", "share", "answers that back up and try again", hero=True),
    Figure("verification_rate", "verifies", "share", "answers that check before they end", hero=True),
    Figure("language_consistency", "language", "share", "words in the language of the question", hero=True),
    Figure("format_share", "format", "share", "answers in the form that was asked for"),
    Figure("summary_share", "summary", "share", "answers with a sentence for the reader after the thinking"),
    Figure("slip_share", "slips", "share", "sums that are not true"),
    Figure("truncated_share", "cut", "share", "answers that hit the token limit"),
    Figure("repetition_share", "repeats", "share", "text that says itself again"),
)


def benchmarks(models: Sequence[Row]) -> list[Row]:
    """Gather the models of each benchmark, with the colours that they have in its chart, and the columns they fill."""
    names = list(dict.fromkeys(model["benchmark"] for model in models))
    groups = {name: [model for model in models if model["benchmark"] == name] for name in names}
    return [
        {
            "name": name,
            "models": [model | {"colour": colour} for model, colour in zip(group, model_colours(group), strict=True)],
            "figures": [f for f in FIGURES if any(model.get(f.key) is not None for model in group)],
            "budget": budget_chart(name, group),
        }
        for name, group in groups.items()
    ]


def hero(found: Sequence[Row], stages: Sequence[Row]) -> Row | None:
    """Return the before and after of the run; of an unfinished one, those of the latest stage that was evaluated.

    Between them stand the models with a name in the paper.
    """
    if found:
        models = found[0]["models"]
        title = found[0]["name"]
    elif evaluated := [stage for stage in stages if stage["evaluations"]]:
        models = [row | {"stage": f"step {row['step']}"} for row in evaluated[-1]["evaluations"]]
        title = f"held-out problems of {evaluated[-1]['name']}, so far"
    else:
        return None
    after = main_model(models)
    before = [] if after is models[0] else [models[0]]
    between = [model for model in models[1 : models.index(after)] if model.get("title")]
    shown = [figure for figure in FIGURES if figure.hero and after.get(figure.key) is not None]
    return {
        "title": title,
        "before": models[0],
        "after": after,
        "ladder": [*before, *between[: HERO_LADDER - 2], after],
        "main": shown[0] if shown and shown[0].key == "pass_at_1" else None,
        "others": [figure for figure in shown if figure.key != "pass_at_1"],
    }
