"""Write the leaderboard of evaluations: models by benchmark with intervals, curves, and the answers behind them.

One HTML file that opens offline, made from evaluation folders alone. It states what it leaves out: of many outputs a
seeded selection is embedded, with every verdict beside it. Quoted scores stand in a section of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from hone.report.browse import browse, num_shown
from hone.report.charts import MODEL_COLOURS, Row, finite
from hone.report.evaluations import Evaluation, Place, read_evaluations, read_places
from hone.report.figures import FIGURES, Figure
from hone.report.gather import flat
from hone.report.page import render, write_page
from hone.report.reference import Quoted, quoted_rows
from hone.types import HoneError

_COLOURS = (*MODEL_COLOURS, "grey")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross")  # of further models, once the colours are used up
_NO_SETTING = {"format", "model", "benchmark", "hone", "num_problems", "protocol"}  # cannot make two scores differ
_EXPECTED = {"model_hash", "seed"}  # differ from model to model, and that is no reason to warn
_SPOILING = {"verifier", "problems_hash"}  # where they differ, so does what is measured
_OWN_FIGURES = (
    Figure("pass_at_k", "pass@k", "score", "problems of which k answers hold a right one"),
    Figure("instruction_accuracy", "instructions", "score", "single instructions that were followed"),
    Figure("instruction_accuracy_loose", "loose", "score", "instructions followed, if wrappings are forgiven"),
)
_SHARED_FIGURES = {figure.key: figure for figure in FIGURES}
_FIGURES = (
    _SHARED_FIGURES["pass_at_1"], _OWN_FIGURES[0], _SHARED_FIGURES["cons_at_k"], _SHARED_FIGURES["lenient_pass_at_1"],
    *_OWN_FIGURES[1:], _SHARED_FIGURES["completion_length_mean"], _SHARED_FIGURES["truncated_share"],
    _SHARED_FIGURES["format_share"], _SHARED_FIGURES["language_consistency"],
    Figure("unscorable_share", "unscorable", "share", "answers that no verdict could be given on; they count for none"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An evaluation on the page: under which label and look, and what was found of each of its outputs."""

    evaluation: Evaluation
    label: str
    colour: str
    symbol: str
    places: Mapping[str, Sequence[Place]]


def write_leaderboard(folders: Sequence[Path], out: Path) -> Path:
    """Write the leaderboard of evaluation folders to `out`; return where it is. What is wrong with one: HoneError."""
    if not folders:
        raise HoneError("no evaluation to compare: give the folders that `hone eval` wrote")
    entries = _entries(read_evaluations(folders))
    by_benchmark = [(name, list(group)) for name, group in groupby(entries, lambda entry: entry.evaluation.benchmark)]
    benchmarks = [_benchmark(name, group) for name, group in by_benchmark]
    browsers = browse([(name, [_browsed(entry) for entry in group]) for name, group in by_benchmark])
    page = {
        "benchmarks": benchmarks,
        "models": _matrix(benchmarks),
        "num_outputs": sum(len(places) for entry in entries for places in entry.places.values()),
        "browsing": num_shown(browsers),
        "quoted": quoted_tables(quoted_rows()),
    }
    charts = [chart for benchmark in benchmarks for chart in (benchmark["lengths"], benchmark["curves"]) if chart]
    out.parent.mkdir(parents=True, exist_ok=True)
    return write_page(out, render("leaderboard.html.jinja", "leaderboard.js", page, charts, {"browsers": browsers}))


def measured_row(entry: Entry) -> Row:
    """Return a row of a measured table. It takes an evaluation that was read from its folder, and nothing quoted."""
    scores = entry.evaluation.scores
    unscorable = _number(scores.get("num_unscorable"))
    row: Row = {figure.key: _number(scores.get(figure.key)) for figure in _FIGURES}
    row |= {f"{figure.key}_ci95": _interval(scores, figure.key) for figure in _FIGURES}
    return row | {
        "label": entry.label,
        "colour": entry.colour,
        "symbol": entry.symbol,
        "samples": scores["samples"],
        "k": max((point["k"] for point in _curve(entry)), default=scores["samples"]),
        "num_problems": scores["num_problems"],
        "unscorable_share": None if unscorable is None else unscorable / max(1, scores["num_outputs"]),
        "best": False,
    }


def quoted_tables(rows: Iterable[Quoted]) -> list[Row]:
    """Return the published tables: a source, its columns, and a row of figures for each model."""
    tables = []
    for source, found in groupby(rows, lambda row: row.source):
        models = list(found)
        columns = list(dict.fromkeys(column for row in models for column in row.figures))
        cells = [{"model": row.model, "figures": [row.figures.get(column) for column in columns]} for row in models]
        tables.append({"source": source, "columns": columns, "rows": cells})
    return tables


def _entries(evaluations: Sequence[Evaluation]) -> list[Entry]:
    """Label the evaluations, with what sets two of one model and benchmark apart, and order them by benchmark.

    Benchmarks and models keep the order in which they were given.
    """
    labels = _labels(evaluations)
    benchmarks = list(dict.fromkeys(evaluation.benchmark for evaluation in evaluations))
    order = list(dict.fromkeys(labels))
    entries = [
        Entry(
            evaluation=evaluation,
            label=label,
            colour=_COLOURS[order.index(label) % len(_COLOURS)],
            symbol=_SYMBOLS[order.index(label) // len(_COLOURS) % len(_SYMBOLS)],
            places=read_places(evaluation),
        )
        for evaluation, label in zip(evaluations, labels, strict=True)
    ]
    return sorted(entries, key=lambda entry: benchmarks.index(entry.evaluation.benchmark))


def _labels(evaluations: Sequence[Evaluation]) -> list[str]:
    settings = [_settings(evaluation) for evaluation in evaluations]
    labels = []
    for evaluation, own in zip(evaluations, settings, strict=True):
        others = [
            other for one, other in zip(evaluations, settings, strict=True)
            if one.model == evaluation.model and one.benchmark == evaluation.benchmark
        ]  # fmt: skip
        apart = [key for key in own if any(other.get(key) != own[key] for other in others)]
        labels.append(", ".join([evaluation.model, *(f"{_short(key)} {own[key][:24]}" for key in apart)]))
    taken: dict[tuple[str, str], Evaluation] = {}
    for evaluation, label in zip(evaluations, labels, strict=True):
        if (same := taken.setdefault((label, evaluation.benchmark), evaluation)) is not evaluation:
            raise HoneError(
                f"{evaluation.folder}: the same model, benchmark and settings as {same.folder}; name one of the two"
            )
    return labels


def _settings(evaluation: Evaluation) -> dict[str, str]:
    """Return what a score depends on, flat and as text: the settings, and the verifier."""
    kept = {key: value for key, value in evaluation.settings.items() if key not in _NO_SETTING}
    return {"verifier": str(evaluation.scores["verifier"])} | {key: str(value) for key, value in flat(kept)}


def _short(key: str) -> str:
    return key.rpartition(".")[2].replace("_", " ")


def _benchmark(name: str, entries: Sequence[Entry]) -> Row:
    """Return what the page says of one benchmark."""
    rows = [measured_row(entry) for entry in entries]
    doubts = _doubts(entries)
    if not any(doubt["spoils"] for doubt in doubts):
        _mark_best(rows)
    return {
        "name": name,
        "rows": rows,
        "figures": [figure for figure in _FIGURES if _told(figure, rows)],
        "samples": _one_or_k(row["samples"] for row in rows),
        "k": _one_or_k(row["k"] for row in rows),
        "doubts": doubts,
        "settings": _settings_table(entries),
        "protocols": list(dict.fromkeys(str(entry.evaluation.settings.get("protocol") or "") for entry in entries)),
        "groups": _groups(entries),
        "lengths": _length_chart(name, rows),
        "curves": _curve_chart(name, entries),
    }


def _told(figure: Figure, rows: Sequence[Row]) -> bool:
    """Tell whether a figure is known of a model, and is not pass@1 once more, as pass@k is where k is 1."""
    repeated = figure.key == "pass_at_k" and all(row["samples"] == 1 for row in rows)
    return not repeated and any(row[figure.key] is not None for row in rows)


def _one_or_k(values: Iterable[int]) -> int | str:
    """Return what stands for k in a column's title: the number, where it is everyone's."""
    found = set(values)
    return found.pop() if len(found) == 1 else "k"


def _settings_table(entries: Sequence[Entry]) -> list[Row]:
    """Return each setting with its value in every evaluation, and whether they differ."""
    settings = [_settings(entry.evaluation) for entry in entries]
    rows = []
    for key in dict.fromkeys(key for one in settings for key in one):
        values = [one.get(key, "–") for one in settings]
        rows.append({"name": key, "values": values, "differs": key not in _EXPECTED and len(set(values)) > 1})
    versions = [str(entry.evaluation.settings.get("hone") or "–") for entry in entries]
    return [*rows, {"name": "hone", "values": versions, "differs": False}]


def _matrix(benchmarks: Sequence[Row]) -> list[Row]:
    """Return the rows of the table of models by benchmarks."""
    rows = {row["label"]: row for benchmark in benchmarks for row in benchmark["rows"]}
    return [
        {
            "label": label,
            "colour": row["colour"],
            "cells": [
                next((cell for cell in benchmark["rows"] if cell["label"] == label), None) for benchmark in benchmarks
            ],
        }
        for label, row in rows.items()
    ]


def _mark_best(rows: Sequence[Row]) -> None:
    """Mark the row whose interval lies above that of every other."""
    for row in rows:
        others = [other for other in rows if other is not row]
        row["best"] = bool(others) and row["pass_at_1_ci95"] is not None and all(
            other["pass_at_1_ci95"] is not None and row["pass_at_1_ci95"][0] > other["pass_at_1_ci95"][1]
            for other in others
        )  # fmt: skip


def _doubts(entries: Sequence[Entry]) -> list[Row]:
    """Return what makes the scores of one benchmark hard to compare: other problems, another verifier, other settings.

    The first two spoil a comparison; settings may differ on purpose.
    """
    settings = [_settings(entry.evaluation) for entry in entries]
    doubts = []
    problems = [frozenset(entry.places) for entry in entries]
    if len(set(problems)) > 1:
        shared = len(frozenset.intersection(*problems))
        counts = ", ".join(f"{len(ids)} ({entry.label})" for ids, entry in zip(problems, entries, strict=True))
        doubts.append({"spoils": True, "text": f"the problems differ: {counts}; {shared} of them are everyone's"})
    for key in dict.fromkeys(key for one in settings for key in one):
        values = [one.get(key, "–") for one in settings]
        known_already = key == "problems_hash" and bool(doubts)
        if len(set(values)) == 1 or key in _EXPECTED or known_already:
            continue
        by_value = {
            value: [entry.label for entry, own in zip(entries, values, strict=True) if own == value]
            for value in dict.fromkeys(values)
        }
        said = "; ".join(f"{_cut(value)} ({', '.join(labels)})" for value, labels in by_value.items())
        doubts.append({"spoils": key in _SPOILING, "text": f"{_short(key)}: {said}"})
    return doubts


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"


def _groups(entries: Sequence[Entry]) -> list[Row]:
    """Return pass@1 by subject, by level, by whatever the problems are tagged with: a table for each kind of tag."""
    found = [entry.evaluation.scores.get("groups") or {} for entry in entries]
    kinds = dict.fromkeys(kind for groups in found for kind in groups)
    tables = []
    for kind in kinds:
        names = sorted({name for groups in found for name in groups.get(kind, {})}, key=_natural)
        tables.append(
            {
                "kind": kind,
                "rows": [
                    {"name": name, "cells": [_group(groups.get(kind, {}).get(name)) for groups in found]}
                    for name in names
                ],
            }
        )
    return [table for table in tables if table["rows"]]


def _group(scores: Row | None) -> Row | None:
    if scores is None or _number(scores.get("pass_at_1")) is None:
        return None
    return {
        "pass_at_1": _number(scores["pass_at_1"]),
        "pass_at_1_ci95": _interval(scores, "pass_at_1"),
        "num_problems": scores.get("num_problems"),
    }


def _natural(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() and len(name) < 9 else (10**9, name)


def _length_chart(name: str, rows: Sequence[Row]) -> Row | None:
    """Return accuracy against mean length, a point for each model; None where no length is known."""
    curves = []
    for row in rows:
        if row["completion_length_mean"] is None or row["pass_at_1"] is None:
            continue
        curve = _look(row) | {"x": [finite(row["completion_length_mean"])], "y": [finite(row["pass_at_1"])]}
        for axis, key in (("", "pass_at_1"), ("_x", "completion_length_mean")):
            if band := row[f"{key}_ci95"]:
                curve |= {f"low{axis}": [finite(band[0])], f"high{axis}": [finite(band[1])]}
        curves.append(curve)
    if not curves:
        return None
    return _chart(name, "tokens an answer, mean", curves) | {"axis": "scatter"}


def _curve_chart(name: str, entries: Sequence[Entry]) -> Row | None:
    """Return pass@k against k; None where no problem has more than one output."""
    curves = []
    for entry in entries:
        points = _curve(entry)
        curve = _look({"label": entry.label, "colour": entry.colour, "symbol": entry.symbol}) | {
            "x": [point["k"] for point in points],
            "y": [finite(point["pass_at_k"]) for point in points],
        }
        bands = [band for point in points if (band := _interval(point, "pass_at_k"))]
        if points and len(bands) == len(points):
            curve |= {"low": [finite(band[0]) for band in bands], "high": [finite(band[1]) for band in bands]}
        curves.append(curve)
    curves = [curve for curve in curves if curve["x"]]
    ticks = sorted({x for curve in curves for x in curve["x"]})
    if len(ticks) < 2:
        return None
    powers = [tick for tick in ticks if tick in {2**n for n in range(20)}]
    return _chart(name, "k answers", curves) | {"ticks": powers if len(powers) > 1 else ticks}


def _curve(entry: Entry) -> list[Row]:
    return [
        point for point in entry.evaluation.scores.get("pass_at_k_curve") or []
        if _number(point.get("k")) is not None and _number(point.get("pass_at_k")) is not None
    ]  # fmt: skip


def _chart(title: str, x_title: str, curves: Sequence[Row]) -> Row:
    chart = {"title": title, "caption": "", "section": "leaderboard", "axis": "number", "stacked": False}
    return chart | {"x_title": x_title, "curves": curves}


def _look(row: Row) -> Row:
    return {"name": row["label"], "colour": row["colour"], "symbol": row["symbol"], "markers": True}


def _browsed(entry: Entry) -> tuple[Evaluation, Row, Mapping[str, Sequence[Place]]]:
    return entry.evaluation, {"label": entry.label, "colour": entry.colour}, entry.places


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _interval(scores: Row, key: str) -> list[float] | None:
    band = scores.get(f"{key}_ci95")
    if not isinstance(band, list) or len(band) != 2:
        return None
    ends = [_number(end) for end in band]
    return [end for end in ends if end is not None] if None not in ends else None
