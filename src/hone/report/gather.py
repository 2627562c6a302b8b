"""What each stage left on disk, as plain data for its page. Every part of it may be missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hone.report.answers import model_of, same_problem, sampled_groups, step_files, training_groups
from hone.report.charts import Row, training_charts
from hone.report.graph import LOOKS, find_edges
from hone.types import HoneError

COMPUTE = ("tokens_sampled", "tokens_trained", "tflop")
_COUNTED = ("tokens/sampled", "tokens/trained", "compute/tflop")  # of a step, in its metrics
_CLAUSES = {
    "weights": "starts from", "rows": "learns from the rows of", "reward": "is rewarded or judged by",
    "teacher": "imitates", "measured": "takes",
}  # fmt: skip
assert set(_CLAUSES) == set(LOOKS)


@dataclass(frozen=True, slots=True)
class Detail:
    """How much of a run goes into its page: characters of all groups and of one text, points of a curve."""

    groups_chars: int
    text_chars: int
    curve_points: int


def gather_stages(run: Path, manifest: Row, summary: Row, detail: Detail) -> list[Row]:
    """Return what the page of each stage holds."""
    recipe = manifest["recipe"]["stage"]
    settings = {stage["name"]: stage for stage in recipe}
    costs = {stage["stage"]: stage for stage in summary.get("stages", [])}
    num_browsers = sum(
        (run / name / "rollouts").is_dir() or (run / name / "rows.parquet").is_file() for name in manifest["stages"]
    )
    chars = detail.groups_chars // max(1, num_browsers)
    stages = []
    for name, entry in manifest["stages"].items():
        stage = settings.get(name, {"name": name, "kind": entry["kind"]})
        left = _left(run / name, stage, base_model(recipe), detail, chars)
        left |= {"compute": _compute(costs.get(name), left), "reads": _reads(recipe, name), "settings": flat(stage)}
        stages.append(_described(entry, stage) | left | {"key": key_figure(name, left, summary.get("models", []))})
    return stages


def base_model(recipe: Sequence[Row]) -> str | None:
    """Return the model from elsewhere that the recipe starts from; the summary calls it `base`."""
    names = [stage["name"] for stage in recipe]
    outside = (edge.source for edge in find_edges(recipe) if edge.look == "weights" and edge.source not in names)
    return next(outside, None)


def key_figure(name: str, left: Row, models: Sequence[Row]) -> str:
    """Return what a stage came to, in a few words: for a model, pass@1 of its final evaluation."""
    if funnel := left["funnel"]:
        return f"{funnel['kept']} kept"
    if (accuracy := left["results"].get("accuracy_held_out")) is not None:
        return f"held-out {accuracy:.2f}"
    if left["models"]:
        return f"{len(left['models'])} models"
    rows = [model for model in models if model["stage"] == name] or left["evaluations"][-1:]
    return f"pass@1 {rows[0]['pass_at_1']:.2f}" if rows and rows[0].get("pass_at_1") is not None else ""


def flat(table: Row, prefix: str = "") -> list[tuple[str, str]]:
    """Return settings as dotted names and values; those that are not given are left out."""
    rows: list[tuple[str, str]] = []
    for key, value in table.items():
        if isinstance(value, dict):
            rows += flat(value, f"{prefix}{key}.")
        elif value not in (None, ""):
            rows.append((prefix + key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return rows


def _described(entry: Row, stage: Row) -> Row:
    return {
        "name": stage["name"],
        "title": stage.get("title") or "",
        "kind": entry["kind"],
        "state": entry["state"],
        "hash": entry.get("hash") or "",
        "seconds": entry.get("seconds"),
        "started": entry.get("started"),
        "error": entry.get("error"),
    }


def _left(folder: Path, stage: Row, base: str | None, detail: Detail, chars: int) -> Row:
    metrics = read_lines(folder / "metrics.jsonl")
    evaluations = read_lines(folder / "evaluations.jsonl")
    results = read_json(folder / "results.json") or {}
    task = (stage.get("problems") or {}).get("task", "")
    return {
        "metrics": metrics,
        "last_step": metrics[-1]["step"] if metrics else None,
        "evaluations": evaluations,
        "results": results if isinstance(results, dict) else {},
        "benchmarks": list({row["benchmark"] for row in results}) if isinstance(results, list) else [],
        "models": stage.get("models") or [],
        "charts": training_charts(metrics, evaluations, detail.curve_points),
        "released": sorted(path.name for path in (folder / "release").glob("*") if path.is_dir()),
        "alarms": read_lines(folder / "alarms.jsonl"),
        "strip": _strip(folder, stage, base, detail.text_chars),
        "groups": training_groups(folder / "rollouts", chars, detail.text_chars)
        or sampled_groups(folder / "rows.parquet", task, chars, detail.text_chars),
        "preflight": read_json(folder / "preflight.json"),
        "funnel": read_json(folder / "funnel.json"),
    }


def _strip(folder: Path, stage: Row, base: str | None, max_chars: int) -> Row | None:
    """Return the same problems over the evaluations of a training, or over the models of an evaluate stage."""
    if steps := step_files(folder / "evaluations"):
        return same_problem([(f"step {step}", path) for step, path in steps], max_chars, max_columns=8)
    order = stage.get("models") or []
    models = [(model_of(path), path) for path in sorted((folder / "generations").glob("*.parquet"))]
    models.sort(key=lambda model: order.index(model[0]) if model[0] in order else len(order))
    return same_problem([("base" if name == base else name, path) for name, path in models], max_chars)


def _compute(cost: Row | None, left: Row) -> Row:
    """Return the tokens and the arithmetic of a stage: the summary's, or so far what its steps or samples counted."""
    if cost:
        return {key: cost.get(key) for key in COMPUTE}
    rows = left["metrics"] or ([left["funnel"]] if left["funnel"] else [])
    counted = {key: [row[name] for row in rows if name in row] for key, name in zip(COMPUTE, _COUNTED, strict=True)}
    return {key: sum(values) if values else None for key, values in counted.items()}


def _reads(recipe: Sequence[Row], name: str) -> list[tuple[str, list[str]]]:
    """Return what a stage reads and who reads it, as clauses with the names that follow them."""
    edges = find_edges(recipe)
    clauses = [
        (clause, [edge.source for edge in edges if edge.target == name and edge.look == look])
        for look, clause in _CLAUSES.items()
    ]
    readers = list(dict.fromkeys(edge.target for edge in edges if edge.source == name))
    return [(clause, names) for clause, names in (*clauses, ("is read by", readers)) if names]


def read_json(path: Path) -> Row | None:
    try:
        found: Row = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise HoneError(f"{path}: not valid JSON: {error}") from error
    return found


def read_lines(path: Path) -> list[Row]:
    """Read a `.jsonl` file by step. A last line cut short by a crash is left out; a repeated step counts once."""
    text = path.read_text("utf-8", errors="replace") if path.exists() else ""
    lines = [line for line in text.split("\n") if line]
    rows: dict[int, Row] = {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows[row["step"]] = row
        except (ValueError, TypeError, KeyError) as error:
            if number < len(lines):
                raise HoneError(f"{path}, line {number}: not a JSON object with a step") from error
    return [rows[step] for step in sorted(rows)]
