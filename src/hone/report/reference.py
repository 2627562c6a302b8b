"""Scores that others published, to set beside one's own: quoted, not measured here.

They have a type of their own and come from a file of this package alone, so that none can stand among what was
measured. They carry no interval, for their sources give none.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What a quoted figure is of: a benchmark, and how it was scored."""

    benchmark: str
    metric: str
    unit: Literal["percent", "rating"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where figures were published, under which table, and how they were taken."""

    title: str
    url: str
    table: str
    protocol: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """One model's row of a published table, by column."""

    model: str
    source: Source
    figures: Mapping[Column, float]


def quoted_rows() -> list[Quoted]:
    """Return the rows of every quoted table, in the tables' order."""
    file = resources.files("hone.report") / "assets" / "reference_scores.toml"
    found = tomllib.loads(file.read_text("utf-8"))
    columns = {key: Column(**column) for key, column in found["column"].items()}
    return [
        Quoted(
            model=row["model"],
            source=Source(**{key: table[key] for key in ("title", "url", "table", "protocol")}),
            figures={columns[key]: float(figure) for key, figure in row["figures"].items()},
        )
        for table in found["source"]
        for row in table["row"]
    ]
