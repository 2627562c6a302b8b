"""Where the boxes of the stage graph stand and what its edges mean, worked out by hand."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from hone.config import load_recipe, load_study, shipped_recipes
from hone.report.graph import HEIGHT, WIDTH, Edge, find_edges, place

STAGES: list[dict[str, Any]] = [
    {"name": "zero", "kind": "rl", "start_from": "base"},
    {"name": "collect", "kind": "rejection", "start_from": "zero"},
    {"name": "sft", "kind": "sft", "start_from": "base", "data": {"stages": ["collect"]}},
    {"name": "student", "kind": "sft", "start_from": "small", "data": {"path": "a.jsonl"}, "teacher": "sft"},
    {"name": "test", "kind": "evaluate", "models": ["base", "sft"], "judge": {"model": "far", "endpoint": "http://x"}},
    {"name": "release", "kind": "release", "models": ["sft"], "evaluations": ["test"]},
]


def test_edges_follow_the_settings() -> None:
    assert find_edges(STAGES) == [
        Edge("base", "zero", "weights"),
        Edge("zero", "collect", "weights"),
        Edge("base", "sft", "weights"),
        Edge("collect", "sft", "rows"),
        Edge("small", "student", "weights"),
        Edge("sft", "student", "teacher"),
        Edge("base", "test", "measured"),
        Edge("sft", "test", "measured"),
        Edge("sft", "release", "measured"),
        Edge("test", "release", "measured"),
    ]


def test_columns_follow_what_is_read() -> None:
    boxes = place(STAGES)["boxes"]
    columns = sorted({x for x, _ in boxes.values()})
    assert {name: columns.index(x) for name, (x, _) in boxes.items()} == {
        "base": 0, "small": 0, "zero": 1, "collect": 1, "sft": 2, "student": 3, "test": 4, "release": 4
    }  # fmt: skip
    assert boxes["collect"][1] > boxes["zero"][1]  # below the model that it samples


def test_a_trunk_is_drawn_once_and_names_all_that_it_joins() -> None:
    """`base` reaches two stages of column 2 through one lane in column 1."""
    stages = [*STAGES[:3], {"name": "again", "kind": "sft", "start_from": "base", "data": {"stages": ["collect"]}}]
    edges = [edge for edge in place(stages)["edges"] if edge["look"] == "weights" and not edge["ends"]]
    (trunk,) = edges
    assert set(trunk["names"]) == {"base", "sft", "again"}


def test_shipped_recipes_have_no_boxes_on_top_of_each_other() -> None:
    for name in shipped_recipes():
        if load_study(name) is not None:
            continue
        graph = place(load_recipe(name).model_dump(mode="json")["stage"])
        for (_, (x, y)), (_, (other_x, other_y)) in combinations(graph["boxes"].items(), 2):
            assert abs(x - other_x) >= WIDTH or abs(y - other_y) >= HEIGHT, name
        assert all(0 <= x <= graph["width"] - WIDTH and 0 <= y <= graph["height"] - HEIGHT
                   for x, y in graph["boxes"].values())  # fmt: skip


def test_a_stage_alone() -> None:
    assert place([{"name": "pretrain", "kind": "sft", "start_from": {"hidden_size": 64}}])["boxes"] == {
        "pretrain": (0, 0)
    }
