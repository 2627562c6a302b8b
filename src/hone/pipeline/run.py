"""Carries out a recipe in a folder, stage after stage, and goes on where it stopped.

A finished stage is skipped while its hash holds. One whose settings or inputs have changed since is never overwritten
silently: the run is refused, and `--from` makes it and what depends on it again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from hone.config import Dataset, Recipe, RewardModelStage, Stage
from hone.pipeline.manifest import (
    FILE,
    Manifest,
    StageRecord,
    fresh_manifest,
    now,
    read_manifest,
    stage_hashes,
    stage_settings,
)
from hone.pipeline.summary import write_summary
from hone.record.files import alone_in, remove, write_json
from hone.stages.problems import find_problems
from hone.tasks.preferences import read_pairs
from hone.types import HoneError, RunError


@dataclass(frozen=True, slots=True)
class Plan:
    """A recipe set against a run folder: what is done and holds, and what would be carried out."""

    recipe: Recipe
    run: Path
    models: Mapping[str, Path]  # where each name that a stage reads is, stages of this run among them; see `_fetch`
    manifest: Manifest
    changed: tuple[str, ...]  # begun or finished stages whose hash no longer holds


def make_plan(recipe: Recipe, run: Path) -> Plan:
    """Find the models that the recipe reads, hash its stages and compare them with what the run folder holds."""
    from hone.models.folders import find_here  # reads no weights

    own = {stage.name for stage in recipe.stage}
    outside = {name: find_here(name) for stage in recipe.stage for name in stage.inputs if name not in own}
    hashes = stage_hashes(recipe, outside)
    manifest = fresh_manifest(recipe, hashes)
    changed = []
    if (run / FILE).is_file():
        for name, record in read_manifest(run).stages.items():
            if record.hash == hashes.get(name):
                manifest.stages[name] = record
            elif name in own and record.state != "pending":
                changed.append(name)  # of a stage that the recipe no longer has, the folder is left as it is
    here = {name: folder for name, folder in outside.items() if folder}
    models = {**here, **{name: run / name / "checkpoint" for name in own}}
    return Plan(recipe, run, models, manifest, tuple(changed))


def run_recipe(recipe: Recipe, run: Path, console: Console, *, from_stage: str | None = None) -> Path:
    """Carry out what is not done yet; return the path of the summary.

    Raises `HoneError` where the folder holds stages made with other settings, or another process works in it.
    """
    with alone_in(run):
        plan = make_plan(recipe, run)
        if from_stage:
            plan = _start_again(plan, from_stage)
        elif plan.changed:
            raise HoneError(
                f"{run}: stage {plan.changed[0]!r} was made with other settings or inputs. Nothing was changed: give "
                f"another --out for a new run, or --from {plan.changed[0]} to make it and what depends on it again"
            )
        _read_data(plan)
        plan = _fetch(plan)
        plan.manifest.save(run)
        for stage in recipe.stage:
            if plan.manifest.stages[stage.name].state == "done":
                console.print(f"{stage.name}  done before, skipped", highlight=False)
                remove(run / stage.name / "resume")  # it is still there where a run was killed as the stage was done
                continue
            _carry_out(stage, plan, console)
        return write_summary(recipe, plan.manifest, run)


def _read_data(plan: Plan) -> None:
    """Read the problems and pairs of every stage that is not done, so that a wrong file is refused before any work."""
    for stage in plan.recipe.stage:
        if plan.manifest.stages[stage.name].state != "done":
            for problems in stage.problem_sets:
                if isinstance(problems, Dataset):
                    find_problems(problems)
            if isinstance(stage, RewardModelStage) and stage.data.path:
                read_pairs(stage.data.path)


def _fetch(plan: Plan) -> Plan:
    """Fetch the hub's models that stages not done yet read: a plan leaves them out, a run without them is refused."""
    from hone.models.folders import find_model

    waiting = [stage for stage in plan.recipe.stage if plan.manifest.stages[stage.name].state != "done"]
    wanted = {name for stage in waiting for name in stage.inputs if name not in plan.models}
    return replace(plan, models={**plan.models, **{name: find_model(name) for name in sorted(wanted)}})


def dependents(recipe: Recipe, name: str) -> list[str]:
    """Return a stage and all that depend on it, in the recipe's order."""
    found = [name]
    for stage in recipe.stage:
        if any(source in found for source in stage.inputs):
            found.append(stage.name)
    return found


def _start_again(plan: Plan, name: str) -> Plan:
    if name not in plan.manifest.stages:
        raise HoneError(f"--from {name}: no such stage; the recipe has {', '.join(plan.manifest.stages)}")
    again = dependents(plan.recipe, name)
    if left := [stage for stage in plan.changed if stage not in again]:
        raise HoneError(f"--from {name}: stage {left[0]!r} comes before it and was made with other settings too")
    for stage in again:
        remove(plan.run / stage)
        record = plan.manifest.stages[stage]
        plan.manifest.stages[stage] = StageRecord(kind=record.kind, hash=record.hash)
    return plan


def _carry_out(stage: Stage, plan: Plan, console: Console) -> None:
    # Imported here, so that planning needs no torch.
    from hone.engine.local.engine import set_threads
    from hone.stages.context import StageContext
    from hone.stages.registry import RUNNERS

    set_threads(plan.recipe.threads)
    record = plan.manifest.stages[stage.name]
    folder = plan.run / stage.name
    context = StageContext(
        name=stage.name, folder=folder, seed=plan.recipe.seed, console=console,
        models={name: plan.models[name] for name in stage.inputs},
    )  # fmt: skip
    record.state, record.started, record.error = "running", record.started or now(), None
    plan.manifest.save(plan.run)
    write_json(folder / "config.json", stage_settings(stage))
    started, before = time.monotonic(), record.seconds or 0.0
    try:
        RUNNERS[stage.kind](stage, context)
        record.state = "done"
    except (HoneError, RunError) as error:
        record.state, record.error = "failed", str(error)
        raise
    finally:
        record.seconds = before + time.monotonic() - started
        plan.manifest.save(plan.run)
    remove(context.resume)
