"""`summary.json`: the figures of a run's models side by side, what each stage cost, and the claims of its recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hone.config import EvaluateStage, Recipe, Stage
from hone.pipeline.claims import decide
from hone.pipeline.manifest import Manifest
from hone.record.files import read_rows, write_json

COSTS = {"tokens_sampled": "tokens/sampled", "tokens_trained": "tokens/trained", "tflop": "compute/tflop"}


def write_summary(recipe: Recipe, manifest: Manifest, run: Path) -> Path:
    """Gather the results of the run's evaluations and judge its claims."""
    stages = [{**_costs(stage, run), "seconds": manifest.stages[stage.name].seconds} for stage in recipe.stage]
    models = _models(recipe, run, {stage["stage"]: stage for stage in stages})
    summary = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "preset": recipe.preset,
        "seconds": sum(stage["seconds"] or 0.0 for stage in stages),
        "models": models,
        "stages": stages,
        "claims": [decide(claim, [by_name(models)]) for claim in recipe.claim],
    }
    write_json(run / "summary.json", summary)
    return run / "summary.json"


def by_name(models: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the figures of each model on the first benchmark, and those of others under `benchmark:name`."""
    found: dict[str, Mapping[str, Any]] = {}
    for model in models:
        first = model["benchmark"] == models[0]["benchmark"]
        found[model["stage"] if first else f"{model['benchmark']}:{model['stage']}"] = model
    return found


def base_of(recipe: Recipe) -> str | None:
    """Return the model elsewhere that the recipe starts from: it goes by the name `base` in every recipe."""
    own = {stage.name for stage in recipe.stage}
    outside = [name for stage in recipe.stage if stage.kind != "evaluate" for name in stage.inputs if name not in own]
    return outside[0] if outside else None


def _models(recipe: Recipe, run: Path, costs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    base = base_of(recipe)
    titles = {stage.name: stage.title for stage in recipe.stage}
    return [
        {
            **result,
            "stage": "base" if result["stage"] == base else result["stage"],
            "title": titles.get(result["stage"], ""),
            "tflop": costs.get(result["stage"], {}).get("tflop"),
        }
        for stage in recipe.stage
        if isinstance(stage, EvaluateStage)
        for result in json.loads((run / stage.name / "results.json").read_text("utf-8"))
    ]


def _costs(stage: Stage, run: Path) -> dict[str, Any]:
    """Add up what the steps of a stage cost."""
    funnel = run / stage.name / "funnel.json"
    rows = (
        [json.loads(funnel.read_text("utf-8"))] if funnel.is_file() else read_rows(run / stage.name / "metrics.jsonl")
    )
    sums = {name: sum(row.get(key, 0) for row in rows) for name, key in COSTS.items()}
    return {"stage": stage.name, "kind": stage.kind, "title": stage.title, **sums}
