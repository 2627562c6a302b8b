"""`summary.json`: the figures of a run's models side by side, and the paper's claims decided by their intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hone.config import Recipe
from hone.pipeline.manifest import Manifest
from hone.record.files import write_json


class Claim(NamedTuple):
    """A statement about a figure of a model against the model it was trained from."""

    text: str
    figure: str
    sign: int  # +1: it rises, -1: it falls


CLAIMS = (
    Claim("pure RL raises accuracy", "pass_at_1", +1),
    Claim("finished outputs grow longer by themselves", "completion_length_finished_mean", +1),
    Claim("reflection rises by itself", "reflection_rate", +1),
    Claim("verification rises by itself", "verification_rate", +1),
    Claim("R1-Zero mixes languages more than its base", "language_consistency", -1),
    Claim("R1-Zero repeats itself more than its base", "repetition_share", +1),
)


def write_summary(recipe: Recipe, manifest: Manifest, run: Path) -> Path:
    """Gather the results of the run's evaluations and judge the claims of its RL stages."""
    models = []
    trained_from = {name for stage in recipe.stage if stage.kind != "evaluate" for name in stage.inputs}
    outside = trained_from - {stage.name for stage in recipe.stage}
    for stage in recipe.stage:
        if stage.kind == "evaluate":
            for result in json.loads((run / stage.name / "results.json").read_text("utf-8")):
                # The model that everything began from goes by the name that every recipe shares.
                models.append({**result, "stage": "base" if result["stage"] in outside else result["stage"]})
    summary = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "seconds": sum(record.seconds or 0.0 for record in manifest.stages.values()),
        "models": models,
        "claims": _judge(recipe, models),
    }
    write_json(run / "summary.json", summary)
    return run / "summary.json"


def _judge(recipe: Recipe, models: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    found = []
    first = next((stage for stage in recipe.stage if stage.kind == "rl"), None)
    benchmark = models[0]["benchmark"] if models else None
    figures = {model["stage"]: model for model in models if model["benchmark"] == benchmark}
    if first is not None and "base" in figures and first.name in figures:
        for claim in CLAIMS:
            verdict, evidence = decide(claim, figures["base"], figures[first.name])
            found.append({"claim": claim.text, "verdict": verdict, "evidence": evidence})
    return found


def decide(claim: Claim, before: dict[str, Any], after: dict[str, Any]) -> tuple[str, str]:
    """Return `holds`, `does not hold` or `not clear`, by whether the 95% intervals are disjoint, and the figures."""
    old, new = before[claim.figure], after[claim.figure]
    old_ci, new_ci = before[f"{claim.figure}_ci95"], after[f"{claim.figure}_ci95"]
    if old is None or new is None:
        return "not clear", "no output to measure it on"
    evidence = f"{old:.3f} [{old_ci[0]:.3f}, {old_ci[1]:.3f}] -> {new:.3f} [{new_ci[0]:.3f}, {new_ci[1]:.3f}]"
    rises, falls = new_ci[0] > old_ci[1], new_ci[1] < old_ci[0]
    if not (rises or falls):
        return "not clear", evidence
    return ("holds" if rises == (claim.sign > 0) else "does not hold"), evidence
