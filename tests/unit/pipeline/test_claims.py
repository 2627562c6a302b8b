"""Claims of the paper, decided by intervals that were worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from hone.config import Claim
from hone.pipeline.claims import decide, difference


def claim(expect: str = "higher", **settings: Any) -> Claim:
    return Claim.model_validate(
        {"text": "it rises", "figure": "x", "of": "new", "than": "old", "expect": expect, **settings}
    )


def model(mean: float | None, half: float = 0.03, **more: Any) -> dict[str, Any]:
    """A model's figure with an interval of `half` to each side."""
    return {"x": mean, "x_ci95": None if mean is None else [mean - half, mean + half], **more}


def run(old: float | None, new: float | None) -> dict[str, dict[str, Any]]:
    return {"old": model(old, 0.03), "new": model(new, 0.04)}


def test_the_interval_of_a_difference_adds_the_errors_in_squares() -> None:
    # Half-widths of 0.03 and 0.04 make one of 0.05.
    found = difference("x", model(0.50, 0.04), model(0.30, 0.03))
    assert found == pytest.approx((0.20, 0.15, 0.25))
    # The lower end stops at zero, so the upper one tells the error: 0.03 again.
    at_zero = {"x": 0.01, "x_ci95": [0.0, 0.04]}
    assert difference("x", model(0.50, 0.04), at_zero) == pytest.approx((0.49, 0.44, 0.54))
    assert difference("x", model(0.5, 0.0), model(0.3, 0.0)) == pytest.approx((0.2, 0.2, 0.2))


@pytest.mark.parametrize(
    ("expect", "margin", "old", "new", "verdict"),
    [
        ("higher", 0.0, 0.30, 0.36, "holds"),  # 0.06 +- 0.05
        ("higher", 0.0, 0.30, 0.34, "not clear"),  # 0.04 +- 0.05
        ("higher", 0.0, 0.30, 0.30, "not clear"),
        ("higher", 0.0, 0.30, 0.24, "does not hold"),
        ("lower", 0.0, 0.30, 0.24, "holds"),
        ("lower", 0.0, 0.30, 0.26, "not clear"),
        ("lower", 0.0, 0.30, 0.36, "does not hold"),
        ("not lower", 0.02, 0.30, 0.34, "holds"),  # from -0.01 on
        ("not lower", 0.02, 0.30, 0.32, "not clear"),  # from -0.03 on
        ("not lower", 0.10, 0.30, 0.26, "holds"),  # from -0.09 on
        ("not lower", 0.02, 0.30, 0.22, "does not hold"),  # to -0.03
        ("not lower", 0.02, 0.30, 0.24, "not clear"),  # to -0.01, within the margin
        ("not higher", 0.02, 0.30, 0.26, "holds"),
        ("not higher", 0.02, 0.30, 0.28, "not clear"),
        ("not higher", 0.02, 0.30, 0.38, "does not hold"),
        ("not lower", 0.0, 0.30, 0.30, "not clear"),  # no margin, no equality
    ],
)
def test_an_interval_decides(expect: str, margin: float, old: float, new: float, verdict: str) -> None:
    found = decide(claim(expect, margin=margin), [run(old, new)])
    assert (found["claim"], found["verdict"], found["seeds"]) == ("it rises", verdict, [verdict])


def test_the_evidence_gives_both_figures_and_every_difference() -> None:
    found = decide(claim(), [run(0.30, 0.50), run(0.40, 0.52)])
    assert found["evidence"] == "old 0.350 -> new 0.510: +0.200 [+0.150, +0.250], +0.120 [+0.070, +0.170]"


@pytest.mark.parametrize(
    ("seeds", "verdict"),
    [
        ([(0.30, 0.50), (0.30, 0.40), (0.20, 0.50)], "holds"),
        ([(0.50, 0.30), (0.40, 0.30)], "does not hold"),
        ([(0.30, 0.50), (0.50, 0.30)], "not clear"),
        ([(0.30, 0.50), (0.30, 0.50), (0.30, 0.33)], "not clear"),  # one of them cannot say
        ([(0.30, 0.50), (0.30, None)], "not clear"),
    ],
)
def test_seeds_must_agree(seeds: list[tuple[float, float | None]], verdict: str) -> None:
    found = decide(claim(), [run(*seed) for seed in seeds])
    assert found["verdict"] == verdict
    assert len(found["seeds"]) == len(seeds)


def test_a_figure_that_is_missing_decides_nothing() -> None:
    for runs in ([run(0.3, None)], [run(None, 0.3)], [{"old": model(0.3)}], [{}], [{"old": model(0.3), "new": {}}]):
        found = decide(claim(), runs)
        assert (found["verdict"], found["evidence"]) == ("not clear", "no output to measure it on")
    some = decide(claim(), [run(0.3, None), run(0.30, 0.50)])
    assert some["seeds"] == ["not clear", "holds"]
    assert some["evidence"] == "old 0.300 -> new 0.500: +0.200 [+0.150, +0.250]"


def test_a_figure_without_an_interval_decides_nothing() -> None:
    # As the majority's accuracy has none.
    found = decide(claim(), [{"old": {"x": 0.3}, "new": {"x": 0.5}}])
    assert found["verdict"] == "not clear"


@pytest.mark.parametrize(
    ("tflops", "verdict"),
    [
        ([(2.0, 4.0)], "holds"),
        ([(4.0, 4.0)], "holds"),  # no more
        ([(4.1, 4.0)], "not clear"),
        ([(2.0, 4.0), (4.1, 4.0)], "not clear"),  # in every run
    ],
)
def test_a_claim_at_no_more_compute_looks_at_the_arithmetic(tflops: list[tuple[float, float]], verdict: str) -> None:
    runs = [{"new": model(0.50, 0.04, tflop=of), "old": model(0.30, tflop=than)} for of, than in tflops]
    found = decide(claim(no_more_compute=True), runs)
    assert found["verdict"] == verdict
    assert set(found["seeds"]) == {"holds"}
    assert found["evidence"].endswith("; compute x " + ", ".join(f"{of / than:.2f}" for of, than in tflops))
    assert decide(claim(), runs)["verdict"] == "holds"  # where nobody asks
    assert "compute" not in decide(claim(), runs)["evidence"]


def test_compute_does_not_save_a_claim_that_fails() -> None:
    runs = [{"new": model(0.30, 0.04, tflop=2.0), "old": model(0.50, tflop=4.0)}]
    assert decide(claim(no_more_compute=True), runs)["verdict"] == "does not hold"


@pytest.mark.parametrize(("of", "than"), [(None, 4.0), (2.0, None), (None, None)])
def test_compute_that_nobody_counted_is_not_clear(of: float | None, than: float | None) -> None:
    # A model from elsewhere was trained by no stage of the run.
    runs = [{"new": model(0.50, 0.04, tflop=of), "old": model(0.30, tflop=than)}]
    found = decide(claim(no_more_compute=True), runs)
    assert found["verdict"] == "not clear"
    assert found["evidence"].startswith("old 0.300 -> new 0.500")
