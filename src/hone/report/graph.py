"""The stage graph: which stage reads what, and where its box stands.

Reads the recipe's settings as plain tables and draws nothing. A stage stands to the right of all that it reads,
rejection sampling below the model that it samples, evaluation and release in the last column.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from hone.report.charts import Row

Look = Literal["weights", "rows", "reward", "teacher", "measured"]
LOOKS: dict[Look, str] = {
    "weights": "starts from these weights",
    "rows": "learns from these rows",
    "reward": "is rewarded or judged by",
    "teacher": "imitates this teacher",
    "measured": "measures or hands out",
}
WIDTH, HEIGHT = 146, 72
_COLUMN_GAP, _ROW_GAP, _LANE = 36, 18, 8  # a lane is where an edge passes a column
_MAX_COLUMNS = 8  # more get too small to read; evaluation then shares the last one
_SWEEPS = 12
Node = str | tuple[str, Look, int]  # a stage; or where edges of a source and a look pass a column


@dataclass(frozen=True, slots=True)
class Edge:
    """`target` reads `source`."""

    source: str
    target: str
    look: Look


def find_edges(stages: Sequence[Row]) -> list[Edge]:
    """Return who reads whom, by the settings of the recipe's stages; a source may be a model from elsewhere."""
    return [Edge(source, stage["name"], look) for stage in stages for source, look in _inputs(stage)]


def place(stages: Sequence[Row]) -> Row:
    """Return where the boxes stand, by name, the paths of the edges, and the size of the whole."""
    edges = find_edges(stages)
    columns = _columns(stages, edges)
    blocks = _blocks(stages, edges, columns)
    chains = [(edge, _chain(edge, columns)) for edge in edges]
    for lane in dict.fromkeys(node for _, chain in chains for node in chain if isinstance(node, tuple)):
        blocks[lane[2]].append([lane])
    tops = _arrange(blocks, chains)
    paths = _paths(chains, columns, tops)
    return {
        "width": (max(columns.values()) + 1) * (WIDTH + _COLUMN_GAP) - _COLUMN_GAP,
        "height": max(tops[name] for name in columns) + HEIGHT,
        "boxes": {name: (column * (WIDTH + _COLUMN_GAP), tops[name]) for name, column in columns.items()},
        "edges": paths,
        "looks": {look: meaning for look, meaning in LOOKS.items() if any(edge.look == look for edge in edges)},
    }


def _inputs(stage: Row) -> Iterator[tuple[str, Look]]:
    if isinstance(stage.get("start_from"), str):
        yield stage["start_from"], "weights"
    for name in (stage.get("data") or {}).get("stages") or ():
        yield name, "rows"
    if stage.get("teacher"):
        yield stage["teacher"], "teacher"
    general = stage.get("general") or {}
    for name in filter(None, (general.get("helpfulness"), general.get("harmlessness"))):
        yield name, "reward"
    judge = stage.get("judge") or {}
    if judge.get("model") and not judge.get("endpoint"):
        yield judge["model"], "reward"
    for name in (*(stage.get("models") or ()), *(stage.get("evaluations") or ())):
        yield name, "measured"


def _columns(stages: Sequence[Row], edges: Sequence[Edge]) -> dict[str, int]:
    kinds = {stage["name"]: stage["kind"] for stage in stages}
    columns = {edge.source: 0 for edge in edges if edge.source not in kinds}
    final = [name for name, kind in kinds.items() if kind in ("evaluate", "release")]
    for name, kind in kinds.items():
        if name not in final:
            read = [columns[edge.source] for edge in edges if edge.target == name]
            columns[name] = max((column + (kind != "rejection") for column in read), default=0)
    last = max(columns.values(), default=-1)
    return columns | dict.fromkeys(final, last + 1 if last + 1 < _MAX_COLUMNS else last)


def _blocks(stages: Sequence[Row], edges: Sequence[Edge], columns: Mapping[str, int]) -> dict[int, list[list[Node]]]:
    """Return what stands together in each column: a model with the rejection stages that sample it below it."""
    sampled = {
        edge.target: edge.source for edge in edges
        if edge.look == "weights" and columns[edge.source] == columns[edge.target]
    }  # fmt: skip
    blocks: dict[int, list[list[Node]]] = defaultdict(list)
    for name, column in columns.items():
        if name not in sampled:
            blocks[column].append([name, *(below for below, above in sampled.items() if above == name)])
    return blocks


def _chain(edge: Edge, columns: Mapping[str, int]) -> list[Node]:
    """Return what an edge goes through. Edges of one source and look share their lanes; measuring ones have none."""
    first, last = columns[edge.source], columns[edge.target]
    lanes = [] if edge.look == "measured" else [(edge.source, edge.look, n) for n in range(first + 1, last)]
    return [edge.source, *lanes, edge.target]


def _arrange(blocks: Mapping[int, list[list[Node]]], chains: Sequence[tuple[Edge, list[Node]]]) -> dict[Node, int]:
    """Order and space the blocks of each column so that edges are short: sweeps of the barycentre method."""
    before: dict[Node, list[Node]] = defaultdict(list)
    after: dict[Node, list[Node]] = defaultdict(list)
    for edge, chain in chains:
        for left, right in pairwise(chain):
            before[right].append(left)
            after[left] += [right] if edge.look != "measured" else []
    tops: dict[Node, float] = {}
    for column in blocks.values():
        _stack(column, {}, tops)
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        for number in sorted(blocks, reverse=not forward):
            _stack(blocks[number], before if forward else after, tops)
    top = min(tops.values())
    return {node: round(y - top) for node, y in tops.items()}


def _stack(column: Sequence[Sequence[Node]], neighbours: Mapping[Node, list[Node]], tops: dict[Node, float]) -> None:
    """Move each block of a column as near to its neighbours as the others let it; sets `tops`."""
    wanted = []
    for block in column:
        offsets = dict(zip(block, _offsets(block), strict=True))
        pulls = [
            tops[other] + _height(other) / 2 - _height(node) / 2 - offsets[node]
            for node in block for other in neighbours.get(node, ()) if other not in offsets
        ]  # fmt: skip
        wanted.append(sum(pulls) / len(pulls) if pulls else tops.get(block[0], 0.0))
    order = sorted(range(len(column)), key=lambda n: wanted[n])
    placed, free = {}, float("-inf")
    for n in order:
        placed[n] = max(wanted[n], free)
        free = placed[n] + _offsets(column[n])[-1] + _height(column[n][-1]) + _ROW_GAP
    drift = sum(placed[n] - wanted[n] for n in order) / max(1, len(order))
    for n, block in enumerate(column):
        for node, offset in zip(block, _offsets(block), strict=True):
            tops[node] = placed[n] - drift + offset


def _height(node: Node) -> int:
    return HEIGHT if isinstance(node, str) else _LANE


def _offsets(block: Sequence[Node]) -> list[int]:
    return [n * (HEIGHT + _ROW_GAP) for n in range(len(block))]


def _paths(
    chains: Sequence[tuple[Edge, list[Node]]], columns: Mapping[str, int], tops: Mapping[Node, int]
) -> list[Row]:
    """Return SVG paths from column to column, each once, with the names of the stages that edges through it join.

    Edges that end at one box meet it one below the other.
    """
    arriving: dict[Node, list[Node]] = defaultdict(list)
    for edge, chain in chains:
        if columns[edge.source] < columns[edge.target] and edge.look != "measured":
            arriving[chain[-1]].append(chain[-2])
    pieces: dict[tuple[Node, Node, Look], Row] = {}
    for edge, chain in chains:
        for left, right in pairwise(chain):
            ports = sorted(arriving[right], key=lambda node: tops[node]) if isinstance(right, str) else []
            shift = (ports.index(left) - (len(ports) - 1) / 2) * 13 if left in ports else 0.0
            below = columns[edge.source] == columns[edge.target]
            path = _below(edge, columns, tops) if below else _across(left, right, columns, tops, shift)
            fresh = {"look": edge.look, "path": path, "ends": isinstance(right, str), "names": []}
            pieces.setdefault((left, right, edge.look), fresh)["names"] += [edge.source, edge.target]
    return list(pieces.values())


def _below(edge: Edge, columns: Mapping[str, int], tops: Mapping[Node, int]) -> str:
    """Return the path to a box of the same column: straight down, or round what stands between."""
    left, start, end = columns[edge.source] * (WIDTH + _COLUMN_GAP), tops[edge.source] + HEIGHT, tops[edge.target]
    if 0 < end - start <= _ROW_GAP:
        return f"M{left + WIDTH // 2} {start}V{end}"
    return f"M{left} {start - 20}C{left - 24} {start},{left - 24} {end},{left} {end + HEIGHT // 2}"


def _across(left: Node, right: Node, columns: Mapping[str, int], tops: Mapping[Node, int], shift: float) -> str:
    """Return the path to the next node of a chain, and through it where it is a lane."""
    x, y = _column(left, columns) * (WIDTH + _COLUMN_GAP) + WIDTH, tops[left] + _height(left) / 2
    end, height = _column(right, columns) * (WIDTH + _COLUMN_GAP), tops[right] + _height(right) / 2 + shift
    middle = (x + end) / 2
    through = "" if isinstance(right, str) else f"H{end + WIDTH}"
    return f"M{x} {y:g}C{middle:g} {y:g},{middle:g} {height:g},{end} {height:g}{through}"


def _column(node: Node, columns: Mapping[str, int]) -> int:
    return columns[node] if isinstance(node, str) else node[2]
