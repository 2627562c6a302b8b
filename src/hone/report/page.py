"""What the HTML pages share: one file each, which opens offline, holds plotly, and is written whole or not at all.

What models wrote is untrusted: it reaches a page as JSON that no text can close, and is set there as text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from hone.report.charts import Row
from hone.report.figures import Figure
from hone.types import HoneError


def render(template: str, script: str, page: Row, charts: Sequence[Row], data: Row) -> bytes:
    """Return a page: `template` filled in with `page`, then the data and the charts for `script`, which draws them."""
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise HoneError(f"the report needs {error.name}: pip install 'hone-r1[report]'") from error
    for number, chart in enumerate(charts):
        chart["id"] = f"chart-{number}"

    package = resources.files("hone.report")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=FunctionLoader(lambda name: (package / name).read_text("utf-8")),
    )  # fmt: skip
    environment.filters |= {
        "duration": _duration, "figure": _figure, "percent": _percent, "stamp": _stamp, "count": _count,
        "parameters": _parameters, "cut": _cut,
    }  # fmt: skip
    text = environment.get_template(template).render(
        **page,
        style=Markup((package / "style.css").read_text("utf-8")),
        script=Markup("".join((package / name).read_text("utf-8") for name in ("page.js", script))),
        plotly=Markup(get_plotlyjs() if charts else ""),
        data=Markup(embedded({"charts": charts} | data)),
    )
    return text.encode("utf-8", "replace")  # a lone surrogate cannot be written


def embedded(data: Any) -> str:
    """Return data as JSON. Without a single `<`, no text in it can end the script element around it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def write_page(out: Path, page: bytes) -> Path:
    """Write a page to `out`, whole or not at all, and return where it is."""
    unfinished = out.with_name(out.name + ".tmp")
    unfinished.write_bytes(page)
    os.replace(unfinished, out)
    return out


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


def _count(value: float | None) -> str:
    """Write a count, or an amount of arithmetic, with three digits where it is small."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _parameters(count: int) -> str:
    """Write 570000 as 0.57M."""
    unit, size = ("B", 1e9) if count >= 1e9 else ("M", 1e6) if count >= 1e5 else ("k", 1e3)
    return f"{count / size:.3g}{unit}"


def _cut(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _stamp(started: str | None) -> str:
    """Shorten `2025-11-22T20:41:07+00:00` to the minute."""
    return (started or "")[:16].replace("T", " ")
