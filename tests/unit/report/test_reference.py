"""The quoted rows: what they must say of themselves, and that none gets among what was measured."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from evaluation_folders import output, write_evaluation
from pages import Page

from hone.report import leaderboard
from hone.report.evaluations import read_evaluations
from hone.report.leaderboard import measured_row, write_leaderboard
from hone.report.reference import quoted_rows
from hone.types import HoneError

DISTILLED = ("Qwen-1.5B", "Qwen-7B", "Qwen-14B", "Qwen-32B", "Llama-8B", "Llama-70B")


def figure(table: str, model: str, benchmark: str, metric: str = "pass@1") -> float | None:
    """Return a quoted figure by the start of its source's title and table, e.g. `open-r1, README.md of`."""
    (row,) = [
        row for row in quoted_rows()
        if f"{row.source.title}: {row.source.table}".startswith(table) and row.model == model
    ]  # fmt: skip
    figures = {(column.benchmark, column.metric): value for column, value in row.figures.items()}
    return figures.get((benchmark, metric))


def test_every_row_names_its_source_and_has_figures_of_its_columns() -> None:
    rows = quoted_rows()
    assert len({(row.model, row.source) for row in rows}) == len(rows)
    for row in rows:
        address = urlsplit(row.source.url)
        assert address.scheme == "https"
        assert address.netloc
        assert row.model
        assert row.source.title
        assert row.source.table
        assert row.source.protocol
        assert len(row.figures) >= 2
        for column, value in row.figures.items():
            assert 0 < value <= 100 if column.unit == "percent" else 700 < value < 4000, (row.model, column)


def test_the_figures_of_the_tables_in_the_paper() -> None:
    release = "DeepSeek-R1, README.md of its release: "
    main, distilled = release + "DeepSeek-R1-Evaluation", release + "Distilled"
    assert figure(main, "DeepSeek-R1", "AIME 2024") == 79.8
    assert figure(main, "OpenAI-o1-1217", "Codeforces", "rating") == 2061
    assert figure(main, "DeepSeek-V3", "LiveCodeBench") is None  # the table has a dash
    assert figure(distilled, "DeepSeek-R1-Distill-Qwen-1.5B", "AIME 2024", "cons@64") == 52.7
    assert figure("DeepSeek-R1: Incentivizing", "DeepSeek-R1-Zero", "AIME 2024", "cons@64") == 86.7


def test_open_r1_measured_the_models_that_the_paper_distilled_and_came_within_ten_points() -> None:
    for size in DISTILLED:
        model = f"DeepSeek-R1-Distill-{size}"
        for benchmark in ("AIME 2024", "MATH-500", "GPQA Diamond", "LiveCodeBench"):
            published = figure("DeepSeek-R1, README.md of its release: Distilled", model, benchmark)
            again = figure("open-r1, README.md of February", model, benchmark)
            assert published is not None
            assert again is not None
            assert abs(published - again) < 10, (model, benchmark)


def test_a_quoted_row_is_no_evaluation(tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        measured_row(quoted_rows()[0])  # type: ignore[arg-type]
    tables = Path(leaderboard.__file__).parent / "assets"
    with pytest.raises(HoneError, match="no evaluation there"):
        read_evaluations([tables])


def test_quoted_rows_change_nothing_above_their_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where a model and a benchmark that were measured have the names of quoted ones."""
    folder = write_evaluation(
        tmp_path / "a", {"p": [output()]}, model="DeepSeek-R1-Distill-Qwen-7B", benchmark="MATH-500"
    )
    page = Page(write_leaderboard([folder], tmp_path / "with.html"))
    monkeypatch.setattr(leaderboard, "quoted_rows", list)
    bare = Page(write_leaderboard([folder], tmp_path / "without.html"))

    def above(one: Page) -> str:
        return one.source[: one.source.index('<section id="quoted">')]

    assert above(page) == above(bare)
    assert page.data == bare.data
    assert "92.8" in page.source[page.source.index('<section id="quoted">') :]
    assert page.text.count("quoted, not measured here") == 1 + len({row.source for row in quoted_rows()})
