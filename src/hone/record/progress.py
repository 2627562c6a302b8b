"""Live progress: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


class StageProgress:
    """The progress of one stage, a context manager. `update` says how far it is and what it sees."""

    def __init__(self, console: Console, stage: str, total: int) -> None:
        self.console, self.stage, self.total = console, stage, total
        self._last_line = 0.0
        self._bar = Progress(
            TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[figures]}"), console=console,
        )  # fmt: skip
        self._task = self._bar.add_task(stage, total=total, figures="")

    def update(self, done: int, **figures: float) -> None:
        """Show that `done` of the total are done, with a few figures by name. The total may have been corrected."""
        text = "  ".join(f"{name} {value:.3g}" for name, value in figures.items())
        if self.console.is_terminal:
            self._bar.update(self._task, completed=done, total=self.total, figures=text)
        elif done == self.total or time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self.console.print(f"{self.stage}  {done}/{self.total}  {text}", highlight=False)

    def __enter__(self) -> StageProgress:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bar.stop()


def make_console() -> Console:
    """Return the console on standard error, so that standard output stays clean for results."""
    return Console(stderr=True, soft_wrap=not sys.stderr.isatty())
