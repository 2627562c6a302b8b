"""Kill-anywhere: a recipe is carried out undisturbed, and again while it is killed at every point of a matrix.

Afterwards both folders must hold the same, bit for bit. The killed run is one run: each kill goes on from where the
one before it left off, so a drill costs about two runs. What is killed is a child process, this module as a program,
which sends itself SIGKILL in the midst of a call that it has replaced in itself alone: no other code knows of drills,
and drills know of stages only what they write.
"""

from __future__ import annotations

import filecmp
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pyarrow.parquet as pq
from rich.console import Console

from hone.config import Recipe, parse_recipe
from hone.pipeline import run as pipeline
from hone.pipeline.manifest import FILE, Manifest
from hone.record.files import append_row, read_rows, write_atomically, write_json
from hone.record.progress import make_console
from hone.types import HoneError, RunError

POINTS = ("start", "middle", "saving", "between")
UNDISTURBED, KILLED = "undisturbed", "killed"
LOG, EVENTS, KILLS = "log.txt", "events.json", "kills.json"
MISSED = 3  # the exit status of a child whose stage ended without the kill


class Event(NamedTuple):
    """Something that a stage wrote, `name` below its folder; a row of a log is `FILE#STEP`."""

    stage: str
    kind: str  # row, file or folder
    name: str


class Kill(NamedTuple):
    """Where a run dies: `start`, as the runner is entered; `middle`, before `name` is written; `saving`, in the midst
    of writing `name`; `between`, as soon as the stage is recorded done."""

    stage: str
    point: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Drilled:
    """What a drill found of one stage."""

    stage: str
    reached: Mapping[str, bool]  # the points that the stage has, and whether the run was killed there
    differs: tuple[str, ...]  # the files that do not hold the same, or should not be there

    @property
    def held(self) -> bool:
        return all(self.reached.values()) and not self.differs

    def cells(self) -> list[str]:
        """Return a word for each of `POINTS`; a difference cannot be told apart by points, which are of one run."""
        held = "DIFFERS" if self.differs else "held"
        return [(held if self.reached[point] else "not reached") if point in self.reached else "-" for point in POINTS]


def drill(recipe: Recipe, folder: Path, console: Console, stages: Sequence[str] = ()) -> list[Drilled]:
    """Carry out a recipe twice in a folder, once killed at every point of the stages (of all, without names); compare.

    A drill that was stopped goes on. The last of what it returns is about the run's own files. Raises `RunError` where
    a run does not end.
    """
    own = [stage.name for stage in recipe.stage]
    if unknown := [name for name in stages if name not in own]:
        raise HoneError(f"--stage {unknown[0]}: no such stage; the recipe has {', '.join(own)}")
    events = _undisturbed(recipe, folder, console)
    kills = plan_kills([name for name in own if name in stages or not stages], events)
    reached = _kill_at_each(recipe, folder, kills, console)
    _end(recipe, folder, KILLED)
    return compare(own, reached, folder / UNDISTURBED, folder / KILLED)


def _undisturbed(recipe: Recipe, folder: Path, console: Console) -> list[Event]:
    """Carry the recipe out, unless that was done before, and return what it wrote."""
    if not (folder / EVENTS).is_file():
        if (folder / UNDISTURBED).exists():
            raise HoneError(f"{folder}: the undisturbed run was stopped there; remove it or give another --out")
        folder.mkdir(parents=True, exist_ok=True)
        console.print("carrying the recipe out undisturbed", highlight=False)
        _end(recipe, folder, UNDISTURBED)
    return [Event(*event) for event in json.loads((folder / EVENTS).read_text("utf-8"))]


def plan_kills(stages: Sequence[str], events: Sequence[Event]) -> list[Kill]:
    """Return the kills of the stages in order, given what an undisturbed run wrote."""
    kills = []
    for stage in stages:
        own = [event for event in events if event.stage == stage]
        kills.append(Kill(stage, "start"))
        kills += [Kill(stage, "middle", name) for name in _middle(own)]
        kills += [Kill(stage, "saving", name) for name in _saved(own)]
        kills.append(Kill(stage, "between"))
    return kills


def _middle(events: Sequence[Event]) -> list[str]:
    """Return the write before which half is done: of rows of metrics, else of parts, generations, released models."""
    rows = [event.name for event in events if event.name.startswith("metrics.jsonl#")]
    parts = [event.name for event in events if event.kind != "row" and "/" in event.name]
    halves = rows or parts
    return [halves[len(halves) // 2]] if halves else []


def _saved(events: Sequence[Event]) -> list[str]:
    """Return the last checkpoint and the model; of a stage that writes no folders, its last file."""
    folders = [event.name for event in events if event.kind == "folder"]
    files = [event.name for event in events if event.kind == "file" and event.name != "config.json"]
    checkpoints = [name for name in folders if name.startswith("resume/")]
    results = [name for name in folders if name not in checkpoints] or files
    return checkpoints[-1:] + results[-1:]


def _kill_at_each(recipe: Recipe, folder: Path, kills: Sequence[Kill], console: Console) -> dict[Kill, bool]:
    """Start the run once for each kill that is still to come; return which were reached."""
    reached = _reached_before(folder / KILLS, kills)
    for kill in kills[len(reached) :]:
        # Once a kill was missed, its stage is done, and has no points left.
        lost = any(earlier.stage == kill.stage and not hit for earlier, hit in reached.items())
        status = MISSED if lost else _start(recipe, folder, KILLED, kill)
        if status not in (-signal.SIGKILL, MISSED):
            raise RunError(f"after {len(reached)} kills, before {kill.stage}, {kill.point}: {_last_words(folder)}")
        reached[kill] = status == -signal.SIGKILL
        write_json(folder / KILLS, {"planned": kills, "reached": list(reached.values())})
        at = f" ({kill.name})" if kill.name else ""
        console.print(
            f"{kill.stage}  {kill.point}{at}: {'killed' if reached[kill] else 'not reached'}", highlight=False
        )
    return reached


def _reached_before(file: Path, kills: Sequence[Kill]) -> dict[Kill, bool]:
    if not file.is_file():
        return {}
    before = json.loads(file.read_text("utf-8"))
    if [Kill(*kill) for kill in before["planned"]] != kills:
        raise HoneError(f"{file}: a drill of other stages was here before; give another --out")
    return dict(zip(kills, before["reached"], strict=False))


def _end(recipe: Recipe, folder: Path, part: str) -> None:
    """Carry out, without a kill, what is not done yet."""
    if _start(recipe, folder, part, None):
        raise RunError(f"the {part} run did not end: {_last_words(folder)}")


def _start(recipe: Recipe, folder: Path, part: str, kill: Kill | None) -> int:
    """Carry out the recipe in a child process; return its exit status."""
    order = {"recipe": recipe.model_dump(mode="json"), "folder": str(folder), "part": part, "kill": kill}
    # The log is a file, since verifiers' processes may outlive the child for a moment and would keep a pipe open.
    with (folder / LOG).open("a", encoding="utf-8") as log:
        log.write(f"--- {part}, {' '.join(kill) if kill else 'to the end'}\n")
        log.flush()
        command = [sys.executable, "-m", "hone.pipeline.drill"]
        return subprocess.run(command, input=json.dumps(order).encode(), stdout=log, stderr=log, check=False).returncode


def _last_words(folder: Path) -> str:
    return f"{(folder / LOG).read_text('utf-8').strip().splitlines()[-1]} (all of it in {folder / LOG})"


# ---- the comparison


def compare(stages: Sequence[str], reached: Mapping[Kill, bool], undisturbed: Path, killed: Path) -> list[Drilled]:
    """Compare two folders of a run, stage by stage, and last the run's own files."""
    found = []
    for stage in stages:
        points: dict[str, bool] = {}
        for kill, hit in reached.items():
            if kill.stage == stage:
                points[kill.point] = points.get(kill.point, True) and hit
        found.append(Drilled(stage, points, differences(undisturbed / stage, killed / stage)))
    return [*found, Drilled("the run", {}, differences(undisturbed, killed, "*"))]


def differences(undisturbed: Path, killed: Path, pattern: str = "**/*") -> tuple[str, ...]:
    """Name the files of two folders that do not hold the same but for times, and what interrupted writes have left."""
    one, other = _files(undisturbed, pattern), _files(killed, pattern)
    found = [f"{name} (left over)" for name in sorted(one | other) if name.endswith((".tmp", ".old"))]
    found += [f"{name} (missing)" for name in sorted(one - other)]
    found += [f"{name} (not in {undisturbed})" for name in sorted(other - one)]
    found += [name for name in sorted(one & other) if not _same(undisturbed / name, killed / name)]
    return tuple(found)


def _files(folder: Path, pattern: str) -> set[str]:
    """Return the names of all files, and of folders with a temporary name."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.glob(pattern)
        if (path.is_file() or path.suffix in (".tmp", ".old")) and path.name not in (FILE, ".lock")
    }


def _same(one: Path, other: Path) -> bool:
    if not (one.is_file() and other.is_file()):
        return one.is_dir() and other.is_dir()
    if filecmp.cmp(one, other, shallow=False):
        return True
    read = _READERS.get(one.suffix)
    try:
        return read is not None and read(one) == read(other)
    except ValueError:  # one of them is damaged
        return False


def _table(file: Path) -> str:
    table = pq.read_table(file)
    return f"{table.schema}\n{table.to_pylist()!r}"  # as text, where NaN is like NaN


def _rows(file: Path) -> list[str]:
    """Return the rows of a log; the last line of a torn one is kept as it is."""
    return [json.dumps(_timeless(row)) for row in read_rows(file)] + [file.read_text("utf-8").split("\n")[-1]]


def _object(file: Path) -> str:
    return json.dumps(_timeless(json.loads(file.read_text("utf-8"))))


def _timeless(value: Any) -> Any:
    """Leave out what was measured with a clock."""
    if isinstance(value, list):
        return [_timeless(part) for part in value]
    if not isinstance(value, dict):
        return value
    return {k: _timeless(v) for k, v in value.items() if not k.startswith(("time/", "throughput/", "seconds"))}


def _page(file: Path) -> list[list[str]]:
    """Return the lines of a Markdown page by cells, without a table's column of seconds."""
    lines, column = [], -1
    for line in file.read_text("utf-8").split("\n"):
        cells = [cell.strip() for cell in line.split("|")]
        if not line.startswith("|"):
            column = -1
        elif "seconds" in cells:
            column = cells.index("seconds")
        lines.append(cells if column < 0 else cells[:column] + cells[column + 1 :])
    return lines


_READERS: dict[str, Callable[[Path], object]] = {".parquet": _table, ".jsonl": _rows, ".json": _object, ".md": _page}


# ---- the child process


class _Watch:
    """Notes what a run writes and dies at the kill. It stands in for the two functions through which all writes go."""

    def __init__(self, run: Path, kill: Kill | None) -> None:
        self.run, self.kill, self.events = run, kill, list[Event]()

    def append_row(self, path: Path, row: Mapping[str, Any]) -> None:
        event = self._event(path, "row", f"#{row.get('step')}")
        if self._deadly(event, "middle"):
            _die()
        append_row(path, row)
        self.events.append(event)

    def write_atomically(self, path: Path, write: Callable[[Path], None]) -> None:
        def watched(temporary: Path) -> None:
            saving = self._deadly(self._event(path, "file"), "saving")
            if saving:
                _die_at_the_second_file(temporary)
            write(temporary)
            if saving:
                _die()  # all is written, but not in its place
            self.events.append(self._event(path, "folder" if temporary.is_dir() else "file"))

        if self._deadly(self._event(path, "file"), "middle"):
            _die()
        write_atomically(path, watched)

    def _event(self, path: Path, kind: str, suffix: str = "") -> Event:
        stage, *rest = path.relative_to(self.run).parts if path.is_relative_to(self.run) else ("",)
        return Event(stage, kind, "/".join(rest) + suffix)

    def _deadly(self, event: Event, point: str) -> bool:
        return self.kill == Kill(event.stage, point, event.name)

    def of_stages(self) -> list[Event]:
        """Return what stages wrote, without the files inside of folders that were still being filled."""
        return [event for event in self.events if event.name and ".tmp/" not in event.name]


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("survived SIGKILL")


def _die_at_the_second_file(temporary: Path) -> None:
    """Have the process die as it opens a file in a folder that already holds one."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and str(args[0]).startswith(f"{temporary}/") and any(temporary.iterdir()):
            _die()

    sys.addaudithook(hook)


def _replace(real: object, stand_in: object) -> None:
    """Put a stand-in in the place of a function, in every module that has imported it."""
    for name, module in list(sys.modules.items()):
        if name.startswith("hone."):
            for key in [key for key, value in vars(module).items() if value is real]:
                setattr(module, key, stand_in)


def _kill_between(kill: Kill) -> None:
    real = Manifest.save

    def save(self: Manifest, run: Path) -> None:
        real(self, run)
        if self.stages[kill.stage].state == "done":
            _die()

    Manifest.save = save  # type: ignore[method-assign]


def _kill_at_start(kill: Kill) -> None:
    from hone.stages.registry import RUNNERS

    def deadly(runner: Callable[[Any, Any], None], stage: Any, context: Any) -> None:
        if stage.name == kill.stage:
            _die()
        runner(stage, context)

    for kind, runner in RUNNERS.items():
        RUNNERS[kind] = lambda stage, context, runner=runner: deadly(runner, stage, context)  # type: ignore[misc]


def _stop_after(kill: Kill) -> None:
    """End the process with the stage of a kill that was missed."""
    carry_out = pipeline._carry_out

    def watched(stage: Any, plan: Any, console: Console) -> None:
        carry_out(stage, plan, console)
        if stage.name == kill.stage:
            raise SystemExit(MISSED)

    pipeline._carry_out = watched


def main() -> None:
    """Carry out the order on standard input: a recipe, where, and the kill."""
    order = json.load(sys.stdin)
    folder, kill = Path(order["folder"]), Kill(*order["kill"]) if order["kill"] else None
    importlib.import_module("hone.stages.registry")  # every stage, so that its functions can be replaced
    watch = _Watch(folder / order["part"], kill)
    _replace(append_row, watch.append_row)
    _replace(write_atomically, watch.write_atomically)
    if kill:
        _stop_after(kill)
        if kill.point == "start":
            _kill_at_start(kill)
        elif kill.point == "between":
            _kill_between(kill)
    pipeline.run_recipe(parse_recipe(order["recipe"], "drill"), watch.run, make_console())
    if order["part"] == UNDISTURBED:
        write_json(folder / EVENTS, watch.of_stages())


if __name__ == "__main__":
    main()
