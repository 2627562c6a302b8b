"""A study: one recipe carried out with several seeds, in a folder each, and its claims decided by all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from hone.config import Recipe, Study
from hone.pipeline.claims import decide
from hone.pipeline.run import run_recipe
from hone.pipeline.summary import by_name
from hone.record.files import write_json

FILE = "study.json"


def run_study(study: Study, recipes: Sequence[Recipe], folder: Path, console: Console) -> Path:
    """Carry out what is not done yet, seed after seed; return the path of the summary of all.

    A seed's folder is the folder of a run like any other: several may be carried out at a time, by `hone run` with
    `--set seed=N --out FOLDER/seed-N`.
    """
    write_json(folder / FILE, study.model_dump(mode="json"))
    summaries = []
    for recipe in recipes:
        console.print(f"{study.name}  seed {recipe.seed}", style="bold", highlight=False)
        summary = run_recipe(recipe, folder / f"seed-{recipe.seed}", console)
        summaries.append(json.loads(summary.read_text("utf-8")))
    runs = [by_name(summary["models"]) for summary in summaries]
    write_json(
        folder / "summary.json",
        {
            "recipe": study.name,
            "seeds": list(study.seeds),
            "seconds": sum(summary["seconds"] for summary in summaries),
            "models": [_over_seeds(models) for models in zip(*(s["models"] for s in summaries), strict=True)],
            "claims": [decide(claim, runs) for claim in recipes[0].claim],
        },
    )
    return folder / "summary.json"


def runs_in(folder: Path) -> list[Path]:
    """Return the folders of a study's runs, those that are there; of any other folder itself."""
    if not (folder / FILE).is_file():
        return [folder]
    seeds = json.loads((folder / FILE).read_text("utf-8"))["seeds"]
    return [run for seed in seeds if (run := folder / f"seed-{seed}").is_dir()]


def _over_seeds(models: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return each figure of a model as the mean over seeds, with `<figure>_by_seed`.

    An interval of the mean is that of problems alone; how far seeds differ stands in the figures by seed.
    """
    found: dict[str, Any] = {}
    for name, value in models[0].items():
        values = [model[name] for model in models]
        if name.endswith("_ci95"):
            known = [pair for pair in values if pair is not None]
            found[name] = [fmean(ends) for ends in zip(*known, strict=True)] if known else None
        elif any(isinstance(one, float) for one in values):
            known = [one for one in values if one is not None]
            found[name], found[f"{name}_by_seed"] = fmean(known) if known else None, values
        else:
            found[name] = value
    return found
