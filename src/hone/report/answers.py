"""What the models wrote: completions with their behaviours marked, the same problem over time, training groups.

Reads stored generations only. What comes out is plain data; the page sets it as text, never as markup.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

from hone.report.charts import Row, evenly, finite
from hone.rewards.behaviour import spans
from hone.rewards.language import foreign_words
from hone.types import Language

Mark = tuple[int, int, str]  # where it starts and ends, and its kind
MAX_PROBLEMS = 6
MAX_STEPS = 30
MAX_GROUPS_A_STEP = 4
MAX_OUTPUTS_A_GROUP = 32
MAX_SAMPLED_GROUPS = 24  # of a rejection stage
_TAG = re.compile(r"<(/?)(think|answer)>")
_STORIES = {  # by whether the answer was right first, last, and ever
    (False, True, True): "learned",
    (False, False, False): "stays wrong",
    (False, False, True): "right for a while",
    (True, False, True): "lost",
    (True, True, True): "right from the start",
}
_WANTED = {"learned": 4, "stays wrong": 1, "lost": 1}  # how many problems of each story are shown, if there are


def marked(task: str, language: Language, text: str, max_chars: int) -> list[Row]:
    """Cut a completion into its think and answer parts, each a list of plain strings and `[string, marks]` pairs.

    Marks are kinds of behaviour, `foreign` for words of the other language, `tag` for the tags themselves.
    """
    text = shortened(text, max_chars)
    marks: list[Mark] = [(span.start, span.end, span.kind) for span in spans(task, text)]
    marks += [(start, end, "foreign") for start, end in foreign_words(text, language)]
    marks += [(match.start(), match.end(), "tag") for match in _TAG.finditer(text)]
    parts = list(_parts(text))
    starts = [start for _, start, _ in parts]
    pieces = groupby(_pieces(text, marks, starts), key=lambda piece: bisect_right(starts, piece[0]) - 1)
    cut = [{"part": parts[number][0], "runs": _runs(text, found)} for number, found in pieces]
    return [part for part in cut if "".join(map(str, part["runs"])).strip()]  # not the space between two parts


def same_problem(columns: Sequence[tuple[str, Path]], max_chars: int, *, max_columns: int | None = None) -> Row | None:
    """Return a handful of problems with their first answer in each column (a step or a model), side by side.

    `tally` counts the stories of all problems, so that the page can say what the shown ones were chosen from.
    """
    columns = evenly(columns, max_columns or len(columns))
    by_column = [{row["problem_id"]: row for row in _rows(path, first_samples=True)} for _, path in columns]
    if not by_column or not by_column[0]:
        return None
    stories = {problem: _story([rows.get(problem) for rows in by_column]) for problem in by_column[0]}
    shown = _choose(stories, {problem: row["language"] for problem, row in by_column[0].items()})
    return {
        "columns": [label for label, _ in columns],
        "tally": dict(Counter(stories.values())),
        "problems": [
            _question(by_column[0][problem])
            | {
                "story": stories[problem],
                "answers": [_answer(rows[problem], max_chars) if problem in rows else None for rows in by_column],
            }
            for problem in shown
        ],
    }


def training_groups(folder: Path, total_chars: int, max_chars: int) -> Row | None:
    """Return the training groups of evenly spaced stored steps, as many as fit into `total_chars` characters."""
    paths = step_files(folder)
    steps = [(step, groups) for step, path in evenly(paths, MAX_STEPS) if (groups := _groups(path))]
    if not steps:
        return None
    size = sum(_size(row, max_chars) for _, groups in steps for rows in groups for row in rows)
    kept = evenly(steps, max(1, len(steps) * total_chars // max(size, total_chars)))
    return {
        "unit": "step",
        "num_stored": len(paths),
        "steps": [{"step": step, "groups": [_group(rows, max_chars) for rows in groups]} for step, groups in kept],
    }


def sampled_groups(path: Path, task: str, total_chars: int, max_chars: int) -> Row | None:
    """Return evenly spaced problems of a rejection stage, a few a page, each output with whether it was kept."""
    if not path.is_file():
        return None
    by_problem: dict[str, list[Row]] = {}
    for row in _rows(path):
        by_problem.setdefault(row["problem_id"], []).append(row | {"question": row["prompt"], "task": task})
    groups = [rows[:MAX_OUTPUTS_A_GROUP] for rows in evenly(list(by_problem.values()), MAX_SAMPLED_GROUPS)]
    size = sum(_size(row, max_chars) for rows in groups for row in rows)
    groups = evenly(groups, max(1, len(groups) * total_chars // max(size, total_chars)))
    pages = [groups[start : start + MAX_GROUPS_A_STEP] for start in range(0, len(groups), MAX_GROUPS_A_STEP)]
    return {
        "unit": "page",
        "num_stored": len(by_problem),
        "num_shown": len(groups),
        "steps": [
            {"step": number, "groups": [_group(rows, max_chars) for rows in page]}
            for number, page in enumerate(pages, 1)
        ],
    }


def step_files(folder: Path) -> list[tuple[int, Path]]:
    """Return the files `step-000012.parquet` of a folder with their steps, in order."""
    return sorted((int(path.stem.removeprefix("step-")), path) for path in folder.glob("step-*.parquet"))


def model_of(path: Path) -> str:
    """Return the name of the model whose generations a file holds."""
    models = parquet.read_table(path, columns=["model"]).column("model")
    return str(models[0].as_py()) if len(models) else path.stem


def _rows(path: Path, *, first_samples: bool = False) -> list[Row]:
    rows: list[Row] = parquet.read_table(path, filters=[("sample", "==", 0)] if first_samples else None).to_pylist()
    return rows


def _story(rows: Sequence[Row | None]) -> str:
    right = [row["verdict"] == "right" for row in rows if row is not None]
    return _STORIES[right[0], right[-1], any(right)]


def _choose(stories: Mapping[str, str], languages: Mapping[str, str]) -> list[str]:
    """Choose problems by story, in the order in which they were asked, taking turns between the languages."""
    chosen: list[str] = []
    for story, count in _WANTED.items():
        found = [problem for problem in stories if stories[problem] == story]
        chosen += _in_turns(found, languages)[:count]
    others = [problem for problem in stories if problem not in chosen]
    others.sort(key=lambda problem: stories[problem] in _WANTED)  # the stories not shown yet come first
    chosen = (chosen + _in_turns(others, languages))[:MAX_PROBLEMS]
    missing = [problem for problem in others if languages[problem] not in {languages[one] for one in chosen}]
    return [*chosen[:-1], missing[0]] if missing and len(chosen) == MAX_PROBLEMS else chosen


def _in_turns(problems: Sequence[str], languages: Mapping[str, str]) -> list[str]:
    """Reorder problems so that their languages alternate for as long as they can."""
    seen: Counter[str] = Counter()
    ranks = {}
    for problem in problems:
        ranks[problem] = seen[languages[problem]]
        seen[languages[problem]] += 1
    return sorted(problems, key=lambda problem: ranks[problem])


def _groups(path: Path) -> list[list[Row]]:
    """Return the rows of a step as groups; a group begins at its sample 0."""
    groups: list[list[Row]] = []
    for row in _rows(path):
        if row["sample"] == 0 or not groups:
            groups.append([])
        groups[-1].append(row)
    return [group[:MAX_OUTPUTS_A_GROUP] for group in groups[:MAX_GROUPS_A_STEP]]


def _group(rows: Sequence[Row], max_chars: int) -> Row:
    return _question(rows[0]) | {"outputs": [_answer(row, max_chars) for row in rows]}


def _size(row: Row, max_chars: int) -> int:
    """Return about how many characters an output takes up: its text, and the figures beside it."""
    return min(len(row["completion"]), max_chars) + 150


def _question(row: Row) -> Row:
    return {"question": row["question"], "language": row["language"], "reference": row.get("answer", "")}


def _answer(row: Row, max_chars: int) -> Row:
    """Return an output with its verdict, and its reward and advantage or, of rejection sampling, what became of it."""
    answer = {
        "verdict": row["verdict"],
        "why": row["why"],
        "tokens": row["num_tokens"],
        "text": marked(row["task"], row["language"], row["completion"], max_chars),
    }
    if "rejected_by" in row:
        return answer | {"rejected": row["rejected_by"]}
    parts = json.loads(row["parts"] or "{}")
    return answer | {
        "finish": row["finish_reason"],
        "reward": finite(row["reward"]),
        "advantage": finite(row["advantage"]),
        "parts": {name: finite(value) for name, value in parts.items()},
    }


def shortened(text: str, max_chars: int) -> str:
    """Leave out the middle of a long text, and say so in it."""
    if len(text) <= max_chars:
        return text
    head = max_chars * 2 // 3
    tail = max_chars - head
    return f"{text[:head]} […{len(text) - max_chars} characters left out…] {text[-tail:]}"


def _parts(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield the parts of a completion as (name, start, end), tags with what they enclose; `outside` for the rest."""
    part, start = "outside", 0
    for match in _TAG.finditer(text):
        closing, name = match.groups()
        if closing:
            yield name, start, match.end()
            part, start = "outside", match.end()
        else:
            yield part, start, match.start()
            part, start = name, match.start()
    yield part, start, len(text)


def _pieces(text: str, marks: Sequence[Mark], starts: Sequence[int]) -> Iterator[Mark]:
    """Cut a text wherever a mark begins or ends, or a part starts, and say which kinds hold in each piece."""
    changes: dict[int, list[tuple[str, int]]] = {place: [] for place in (*starts, len(text))}
    for start, end, kind in marks:
        changes.setdefault(start, []).append((kind, 1))
        changes.setdefault(end, []).append((kind, -1))
    active: Counter[str] = Counter()
    for start, end in pairwise(sorted(changes)):
        for kind, change in changes[start]:
            active[kind] += change
        yield start, end, " ".join(sorted(kind for kind in active if active[kind]))


def _runs(text: str, pieces: Iterable[Mark]) -> list[Any]:
    """Write pieces as plain strings and `[string, kinds]` pairs; neighbours of the same kinds become one."""
    runs: list[Any] = []
    for kinds, same in groupby(pieces, key=lambda piece: piece[2]):
        found = list(same)
        words = text[found[0][0] : found[-1][1]]
        runs.append([words, kinds] if kinds else words)
    return runs
