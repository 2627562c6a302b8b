"""The paper's claims, decided by the intervals of a run's figures or, over several seeds, of every run's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from hone.config import Claim

Verdict = Literal["holds", "does not hold", "not clear"]
Figures = Mapping[str, Mapping[str, Any]]  # of each model of one run, by its name


class Difference(NamedTuple):
    """A model's figure less another's, with its 95% interval."""

    mean: float
    low: float
    high: float


def decide(claim: Claim, runs: Sequence[Figures]) -> dict[str, Any]:
    """Return the claim with its verdict, the figures that it rests on, and each run's verdict.

    A run decides by the 95% interval of the difference; several must agree, or the claim is not clear. A model that was
    not measured, a figure without an interval or without an output to measure it on leaves it not clear.
    """
    pairs = [(run.get(claim.of, {}), run.get(claim.than, {})) for run in runs]
    differences = [difference(claim.figure, of, than) for of, than in pairs]
    verdicts = [_verdict(claim, found) for found in differences]
    within = all(_no_more_compute(*pair) for pair in pairs) if claim.no_more_compute else True
    verdict: Verdict = verdicts[0] if len(set(verdicts)) == 1 else "not clear"
    if verdict == "holds" and not within:
        verdict = "not clear"
    return {
        "claim": claim.text,
        "verdict": verdict,
        "evidence": _evidence(claim, pairs, differences),
        "seeds": verdicts,
    }


def difference(figure: str, of: Mapping[str, Any], than: Mapping[str, Any]) -> Difference | None:
    """Return the difference of two figures; their standard errors add in squares, as of independent samples."""
    after, before = of.get(figure), than.get(figure)
    intervals = of.get(f"{figure}_ci95"), than.get(f"{figure}_ci95")
    if after is None or before is None or intervals[0] is None or intervals[1] is None:
        return None
    mean = after - before
    # From the upper ends, since the lower ones stop at zero.
    error = math.hypot(intervals[0][1] - after, intervals[1][1] - before)
    return Difference(mean, mean - error, mean + error)


def _verdict(claim: Claim, found: Difference | None) -> Verdict:
    if found is None:
        return "not clear"
    sign = 1 if claim.expect in ("higher", "not lower") else -1
    low, high = (found.low, found.high) if sign > 0 else (-found.high, -found.low)
    bound = -claim.margin if claim.expect.startswith("not") else 0.0
    return "holds" if low > bound else "does not hold" if high < bound else "not clear"


def _no_more_compute(of: Mapping[str, Any], than: Mapping[str, Any]) -> bool:
    cost, limit = of.get("tflop"), than.get("tflop")
    return cost is not None and limit is not None and bool(cost <= limit)


def _evidence(claim: Claim, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], found: Sequence[Any]) -> str:
    known = [(of, than, one) for (of, than), one in zip(pairs, found, strict=True) if one is not None]
    if not known:
        return "no output to measure it on"
    of, than = (sum(pair[side][claim.figure] for pair in known) / len(known) for side in (0, 1))
    differences = ", ".join(f"{one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}]" for _, _, one in known)
    text = f"{claim.than} {than:.3f} -> {claim.of} {of:.3f}: {differences}"
    costs = [(of.get("tflop"), than.get("tflop")) for of, than, _ in known]
    if claim.no_more_compute and (shares := [cost / limit for cost, limit in costs if cost is not None and limit]):
        text += f"; compute x {', '.join(f'{share:.2f}' for share in shares)}"
    return text
