"""Write the report of a run or a study: one HTML file that opens offline, whatever state the run is in.

Reads the JSON and Parquet files of the run folder alone; it knows no stage, no engine and no recipe model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hone.report.charts import Row
from hone.report.figures import benchmarks, hero
from hone.report.gather import COMPUTE, Detail, base_model, flat, gather_stages, read_json
from hone.report.graph import HEIGHT, WIDTH, place
from hone.report.page import render, write_page
from hone.types import HoneError

MAX_BYTES = 6_000_000
MAX_FINDINGS = 50  # of a preflight; its file holds all
DETAILS = (Detail(450_000, 1600, 300), Detail(180_000, 800, 150), Detail(40_000, 240, 60))


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write the report of a run's or a study's folder to `out`, by default `report.html` inside it; return where it is.

    The page stays under `MAX_BYTES`: of a large run, fewer training steps and shorter texts are shown.
    """
    out = out or run / "report.html"
    for detail in DETAILS:
        page = _render(_run(run, detail) or _study(run, out))
        if len(page) <= MAX_BYTES:
            break
    return write_page(out, page)


def _run(run: Path, detail: Detail) -> Row | None:
    """Return what the page of a run shows; None where the folder is that of no run."""
    manifest = read_json(run / "manifest.json")
    if manifest is None:
        return None
    summary = read_json(run / "summary.json") or {}
    recipe = manifest["recipe"]
    stages = gather_stages(run, manifest, summary, detail)
    return _page(summary, stages) | {
        "recipe": recipe,
        "versions": manifest.get("versions", {}),
        "settings": flat({key: value for key, value in recipe.items() if key not in ("stage", "claim")}),
        "state": _state(manifest["stages"]),
        "seconds": summary.get("seconds") or sum(stage["seconds"] or 0 for stage in stages),
        "graph": _graph(recipe["stage"], stages, summary.get("models", [])),
    }


def _study(run: Path, out: Path) -> Row:
    """Return what the page of a study shows: means over seeds, and where the runs are."""
    study = read_json(run / "study.json")
    if study is None:
        raise HoneError(f"{run}: no manifest.json there; give the folder of a run")
    summary = read_json(run / "summary.json") or {}
    runs = [_seed(run / f"seed-{seed}", seed, out.parent) for seed in study["seeds"]]
    done = sum(one["state"]["word"] == "done" for one in runs)
    word = "done" if done == len(runs) else "running" if any(one["state"]["word"] == "running" for one in runs) else ""
    return _page(summary, []) | {
        "recipe": {"name": study["name"], "summary": study.get("summary", "")},
        "versions": {},
        "settings": [],
        "state": {"word": word or "pending", "text": f"{done} of {len(runs)} runs of {study['recipe']} finished"},
        "seconds": summary.get("seconds") or sum(one["seconds"] or 0 for one in runs),
        "graph": None,
        "runs": runs,
    }


def _seed(folder: Path, seed: int, beside: Path) -> Row:
    manifest = read_json(folder / "manifest.json") or {"stages": {}}
    page = folder / "report.html"
    return {
        "seed": seed,
        "state": _state(manifest["stages"]),
        "seconds": sum(entry.get("seconds") or 0 for entry in manifest["stages"].values()),
        "href": Path(os.path.relpath(page, beside)).as_posix() if page.is_file() else None,
    }


def _page(summary: Row, stages: Sequence[Row]) -> Row:
    """Return what the pages of runs and studies have in common."""
    found = benchmarks(summary.get("models", []))
    return {
        "claims": summary.get("claims", []),
        "hero": hero(found, stages),
        "benchmarks": found,
        "stages": stages,
        "totals": {key: _sum(stage["compute"][key] for stage in stages) for key in COMPUTE},
        "runs": [],
    }


def _graph(recipe: Sequence[Row], stages: Sequence[Row], models: Sequence[Row]) -> Row:
    """Return the boxes and edges of the stage graph, with what stands in each box."""
    graph = place(recipe)
    by_name = {stage["name"]: stage for stage in stages}
    scores = {model["stage"]: model.get("pass_at_1") for model in reversed(models)}
    boxes = []
    for name, (x, y) in graph["boxes"].items():
        box = {"x": x, "y": y, "name": name, "stage": by_name.get(name)}
        score = scores.get("base" if name == base_model(recipe) else name)
        boxes.append(
            box | {"label": name.rsplit("/", 1)[-1], "key": f"pass@1 {score:.2f}" if score is not None else ""}
        )
    return graph | {"boxes": boxes, "box": (WIDTH, HEIGHT)}


def _render(page: Row) -> bytes:
    charts = [chart for stage in page["stages"] for chart in stage["charts"]]
    charts += [benchmark["budget"] for benchmark in page["benchmarks"] if benchmark["budget"]]
    data = {
        "strips": {stage["name"]: stage["strip"] for stage in page["stages"] if stage["strip"]},
        "groups": {stage["name"]: stage["groups"] for stage in page["stages"] if stage["groups"]},
    }
    return render("report.html.jinja", "app.js", page | {"max_findings": MAX_FINDINGS}, charts, data)


def _state(stages: Mapping[str, Row]) -> Row:
    """Return where a run stands, in one word and one sentence."""
    done = sum(entry["state"] == "done" for entry in stages.values())
    for word in ("failed", "running"):
        if names := [name for name, entry in stages.items() if entry["state"] == word]:
            return {"word": word, "text": f"{word} in {names[0]}; {done} of {len(stages)} stages done"}
    if stages and done == len(stages):
        return {"word": "done", "text": "finished"}
    return {"word": "pending", "text": f"unfinished; {done} of {len(stages)} stages done" if stages else "not begun"}


def _sum(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
