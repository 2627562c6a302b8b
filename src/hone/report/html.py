"""Write the report of a run: one HTML file that opens offline, whatever state the run is in.

Reads the JSON and Parquet files of the run folder alone; it knows no stage, no engine and no recipe model. What
models wrote is untrusted: it reaches the page as JSON that no text can close, and is set there as text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from hone.report.answers import model_of, same_problem, step_files, training_groups
from hone.report.charts import Row, budget_chart, model_colours, training_charts
from hone.types import HoneError

MAX_BYTES = 6_000_000
MAX_FINDINGS = 50  # of a preflight; its file holds all


@dataclass(frozen=True, slots=True)
class Detail:
    """How much of a run goes into its page: characters of all training groups and of one text, points of a curve."""

    groups_chars: int
    text_chars: int
    curve_points: int


DETAILS = (Detail(450_000, 1600, 300), Detail(180_000, 800, 150), Detail(40_000, 240, 60))


@dataclass(frozen=True, slots=True)
class Figure:
    """A column of the models' table; the first few also stand in the hero. Shares are written as percentages."""

    key: str
    label: str
    unit: Literal["score", "mean", "share"]
    meaning: str


FIGURES = (
    Figure("pass_at_1", "pass@1", "score", "share of single answers that are right"),
    Figure("cons_at_k", "cons@k", "score", "problems whose majority vote is right"),
    Figure("completion_length_mean", "tokens", "mean", "mean length of an answer"),
    Figure("tries_mean", "tries", "mean", "attempts an answer makes"),
    Figure("reflection_rate", "reflects", "share", "answers that back up and try again"),
    Figure("verification_rate", "verifies", "share", "answers that check before they end"),
    Figure("language_consistency", "language", "share", "words in the language of the question"),
    Figure("format_share", "format", "share", "answers with well-formed tags"),
    Figure("slip_share", "slips", "share", "sums that are not true"),
    Figure("truncated_share", "cut", "share", "answers that hit the token limit"),
    Figure("repetition_share", "repeats", "share", "text that says itself again"),
)
NUM_HERO_FIGURES = 7


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write the report of a run folder to `out`, by default `report.html` inside it, and return where it is.

    The page stays under `MAX_BYTES`: of a large run, fewer training steps and shorter texts are shown.
    """
    out = out or run / "report.html"
    for detail in DETAILS:
        page = _page(run, detail).encode()
        if len(page) <= MAX_BYTES:
            break
    unfinished = out.with_name(out.name + ".tmp")
    unfinished.write_bytes(page)
    os.replace(unfinished, out)
    return out


def _page(run: Path, detail: Detail) -> str:
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise HoneError(f"the report needs {error.name}: pip install 'hone-r1[report]'") from error
    manifest = _read_json(run / "manifest.json")
    if manifest is None:
        raise HoneError(f"{run}: no manifest.json there; give the folder of a run")
    summary = _read_json(run / "summary.json") or {}
    num_browsers = sum((run / name / "rollouts").is_dir() for name in manifest["stages"])
    detail = replace(detail, groups_chars=detail.groups_chars // max(1, num_browsers))
    stages = [_stage(run, name, entry, summary, detail) for name, entry in manifest["stages"].items()]
    benchmarks = _benchmarks(summary.get("models", []))
    charts = [chart for stage in stages for chart in stage["charts"]]
    charts += [benchmark["budget"] for benchmark in benchmarks if benchmark["budget"]]
    for number, chart in enumerate(charts):
        chart["id"] = f"chart-{number}"

    package = resources.files("hone.report")
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template.filters |= {"duration": _duration, "figure": _figure, "percent": _percent, "stamp": _stamp}
    return template.from_string((package / "report.html.jinja").read_text("utf-8")).render(
        recipe=manifest["recipe"],
        versions=manifest.get("versions", {}),
        settings=_settings(manifest["recipe"]),
        state=_state(manifest["stages"]),
        seconds=summary.get("seconds") or sum(stage["seconds"] or 0 for stage in stages),
        claims=summary.get("claims", []),
        hero=_hero(benchmarks, stages),
        benchmarks=benchmarks,
        figures=FIGURES,
        max_findings=MAX_FINDINGS,
        stages=stages,
        style=Markup((package / "style.css").read_text("utf-8")),
        script=Markup((package / "app.js").read_text("utf-8")),
        plotly=Markup(get_plotlyjs()),
        data=Markup(_embedded(charts, stages)),
    )


def _embedded(charts: Sequence[Row], stages: Sequence[Row]) -> str:
    """Return the page's data as JSON. Without a single `<`, no text in it can end the script element around it."""
    data = {
        "charts": charts,
        "strips": {stage["name"]: stage["strip"] for stage in stages if stage["strip"]},
        "groups": {stage["name"]: stage["groups"] for stage in stages if stage["groups"]},
    }
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _stage(run: Path, name: str, entry: Row, summary: Row, detail: Detail) -> Row:
    """Gather what one stage left on disk; every part of it may be missing."""
    folder = run / name
    metrics = _read_lines(folder / "metrics.jsonl")
    evaluations = _read_lines(folder / "evaluations.jsonl")
    return {
        "name": name,
        "kind": entry["kind"],
        "state": entry["state"],
        "hash": entry.get("hash") or "",
        "seconds": entry.get("seconds"),
        "started": entry.get("started"),
        "error": entry.get("error"),
        "last_step": metrics[-1]["step"] if metrics else None,
        "evaluations": evaluations,
        "charts": training_charts(metrics, evaluations, detail.curve_points),
        "strip": same_problem(_columns(folder, summary), detail.text_chars),
        "groups": training_groups(folder / "rollouts", detail.groups_chars, detail.text_chars),
        "preflight": _read_json(folder / "preflight.json"),
        "funnel": _read_json(folder / "funnel.json"),
    }


def _columns(folder: Path, summary: Row) -> list[tuple[str, Path]]:
    """Return what the same problems are compared over: the evaluations of a training, or the models of a stage."""
    if steps := step_files(folder / "evaluations"):
        return [(f"step {step}", path) for step, path in steps]
    order = [model["stage"] for model in summary.get("models", [])]
    models = [(model_of(path), path) for path in sorted((folder / "generations").glob("*.parquet"))]
    return sorted(models, key=lambda model: order.index(model[0]) if model[0] in order else len(order))


def _benchmarks(models: Sequence[Row]) -> list[Row]:
    """Gather the models of each benchmark, with the colours that they have in its chart."""
    names = list(dict.fromkeys(model["benchmark"] for model in models))
    groups = {name: [model for model in models if model["benchmark"] == name] for name in names}
    return [
        {
            "name": name,
            "models": [model | {"colour": colour} for model, colour in zip(group, model_colours(group), strict=True)],
            "budget": budget_chart(name, group),
        }
        for name, group in groups.items()
    ]


def _hero(benchmarks: Sequence[Row], stages: Sequence[Row]) -> Row | None:
    """Return the before and after of the run; of an unfinished one, those of the latest stage that was evaluated."""
    if benchmarks:
        models = benchmarks[0]["models"]
        title, names = benchmarks[0]["name"], [model["stage"] for model in models]
    elif evaluated := [stage for stage in stages if stage["evaluations"]]:
        models = evaluated[-1]["evaluations"]
        title = f"held-out problems of {evaluated[-1]['name']}, so far"
        names = [f"step {row['step']}" for row in models]
    else:
        return None
    before, after = models[0], models[-1]
    figures = [figure for figure in FIGURES[:NUM_HERO_FIGURES] if after.get(figure.key) is not None]
    return {
        "title": title,
        "before": before,
        "after": after,
        "names": (names[0], names[-1]),
        "main": figures[0] if figures and figures[0].key == "pass_at_1" else None,
        "others": [figure for figure in figures if figure.key != "pass_at_1"],
    }


def _state(stages: dict[str, Row]) -> Row:
    """Return where the run stands, in one word and one sentence."""
    done = sum(entry["state"] == "done" for entry in stages.values())
    for word in ("failed", "running"):
        if names := [name for name, entry in stages.items() if entry["state"] == word]:
            return {"word": word, "text": f"{word} in {names[0]}; {done} of {len(stages)} stages done"}
    if done == len(stages):
        return {"word": "done", "text": "finished"}
    return {"word": "pending", "text": f"unfinished; {done} of {len(stages)} stages done"}


def _settings(recipe: Row) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the recipe's settings as titled tables of dotted names and values."""
    general = {key: value for key, value in recipe.items() if key != "stage"}
    return [("recipe", _flat(general)), *((stage["name"], _flat(stage)) for stage in recipe["stage"])]


def _flat(table: Row, prefix: str = "") -> list[tuple[str, str]]:
    flat: list[tuple[str, str]] = []
    for key, value in table.items():
        if isinstance(value, dict):
            flat += _flat(value, f"{prefix}{key}.")
        else:
            flat.append((prefix + key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return flat


def _read_json(path: Path) -> Row | None:
    try:
        found: Row = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise HoneError(f"{path}: not valid JSON: {error}") from error
    return found


def _read_lines(path: Path) -> list[Row]:
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


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _figure(value: Any, figure: Figure, digits: int = 2) -> str:
    """Write a figure of a model as its column wants it."""
    if value is None:
        return "–"
    if figure.unit == "share":
        return _percent(value)
    return f"{value:.{digits if figure.unit == 'score' else 1}f}"


def _percent(value: float) -> str:
    return f"{value:.1%}" if 0 < value < 0.1 else f"{value:.0%}"


def _stamp(started: str | None) -> str:
    """Shorten `2025-11-22T20:41:07+00:00` to the minute."""
    return (started or "")[:16].replace("T", " ")
