"""Two evaluations problem by problem: how far apart they are, whether that could be chance, and what would tell.

Only problems that both have count, each once, by the share of its outputs that are right: outputs of one problem are
not independent, and what makes problems hard is common to both sides. Source: Miller, Adding Error Bars to Evals
(2024), paired differences and power. The module reads figures and knows no outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hone.http import line
from hone.report.evaluations import Evaluation, read_evaluations, read_problems
from hone.types import HoneError

RESAMPLES = 10_000
FLIPS = 100_000
MOST_EXACT = 16  # problems whose signs are flipped in every way there is
LEVEL = 0.05
FEWEST = 6  # problems: of fewer, all of one sign, p = 2 / 2^n does not fall below the level
_CELLS = 4_000_000  # random numbers that are held at once
_POWER = (1.96 + 0.84) ** 2  # two-sided at 5%, found in 80% of repetitions
_TOLD = ("decoding", "benchmark", "prompt", "data")  # settings by which two scores may differ

Values = NDArray[np.float64]


class Paired(NamedTuple):
    """A problem's share of right outputs in each evaluation."""

    id: str
    a: float
    b: float

    @property
    def difference(self) -> float:
        return self.b - self.a


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Evaluation B against A. Figures are over the problems that both scored; `problems` has the most different first.

    `num_more` is how many problems more would tell them apart: None where no number would or none can be named.
    """

    a: str
    b: str
    num_only_a: int
    num_only_b: int
    num_unscored: int  # problems of both, without one scorable output on a side
    pass_at_1_a: float
    pass_at_1_b: float
    difference: float  # B - A
    difference_ci95: tuple[float, float]
    standard_error: float  # of the difference; NaN for a single problem
    p_value: float
    exact: bool
    num_more: int | None
    problems: tuple[Paired, ...]
    warnings: tuple[str, ...]

    @property
    def told_apart(self) -> bool:
        return self.p_value < LEVEL

    def describe(self) -> list[str]:
        """Return what was found, in lines to be printed."""
        low, high = self.difference_ci95
        only = f"{self.num_only_a} only in A, {self.num_only_b} only in B"
        unscored = f", {self.num_unscored} without a scorable output on a side" * (self.num_unscored > 0)
        how = "every flip of signs" if self.exact else f"{FLIPS:,} flips of signs"
        return [
            f"A: {self.a}",
            f"B: {self.b}",
            *(f"warning: {warning}" for warning in self.warnings),
            f"problems in both: {len(self.problems):,} ({only}{unscored})",
            f"pass@1  A {self.pass_at_1_a:.4f}  B {self.pass_at_1_b:.4f}  "
            f"B - A {self.difference:+.4f} [{low:+.4f}, {high:+.4f}]  standard error {self.standard_error:.4f}",
            f"p = {self.p_value:.2g} (paired, {how}): {self._verdict()}",
        ]

    def _verdict(self) -> str:
        if self.told_apart:
            return f"told apart at {LEVEL:.0%}; no more problems are needed"
        if self.difference == 0:
            return "not told apart, and not by any number of problems while the difference is 0"
        if self.num_more is None:
            return "not told apart; one problem does not say how many more it would take"
        return (
            f"not told apart at {LEVEL:.0%}; were this the true difference, {self.num_more:,} problems more would show "
            "it in four of five repetitions"
        )


def compare(a: Path, b: Path) -> Comparison:
    """Compare the evaluation in folder `b` with that in `a`; the same folders, the same figures.

    Raise HoneError for a folder without scores, and where no problem is in both.
    """
    first, second = read_evaluations([a, b])
    of_a, of_b = _shares(first), _shares(second)
    shared = [name for name in of_a if name in of_b]
    if not shared:
        raise HoneError(
            f"{a} ({line(first.benchmark)}) and {b} ({line(second.benchmark)}) share no problem; compare evaluations "
            "of one benchmark"
        )
    _refuse_other_questions(first, second, shared)
    pairs = [
        Paired(name, one, other)
        for name in shared
        if (one := of_a[name]) is not None and (other := of_b[name]) is not None
    ]
    if not pairs:
        raise HoneError(f"{a} and {b}: no problem has a scorable output on both sides; verdicts.jsonl says why")
    differences = np.array([pair.difference for pair in pairs])
    p_value, exact = sign_flip_test(differences)
    return Comparison(
        a=_label(first),
        b=_label(second),
        num_only_a=len(of_a) - len(shared),
        num_only_b=len(of_b) - len(shared),
        num_unscored=len(shared) - len(pairs),
        pass_at_1_a=float(np.mean([pair.a for pair in pairs])),
        pass_at_1_b=float(np.mean([pair.b for pair in pairs])),
        difference=_mean(differences),
        difference_ci95=interval(differences),
        standard_error=math.sqrt(_variance(differences) / len(pairs)),
        p_value=p_value,
        exact=exact,
        num_more=0 if p_value < LEVEL else num_more_problems(differences),
        problems=tuple(sorted(pairs, key=lambda pair: (-abs(pair.difference), pair.difference))),
        warnings=tuple(_warnings(first, second)),
    )


# --- statistics of paired differences [P] ---


def interval(differences: Values, *, seed: int = 0) -> tuple[float, float]:
    """Return the 95% interval of the mean difference, problems being drawn with replacement.

    Problems with the same difference are alike, so the draws are of how often each value comes up.
    """
    values, counts = np.unique(differences.round(12), return_counts=True)
    num = len(differences)
    rng = np.random.default_rng(seed)
    means = [rng.multinomial(num, counts / num, size=size) @ values / num for size in _portions(RESAMPLES, len(values))]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def sign_flip_test(differences: Values, *, seed: int = 0) -> tuple[float, bool]:
    """Return the two-sided p-value of the mean difference, and whether it is exact.

    Were there no difference, A and B could be exchanged in any problem: of all such exchanges, the share that gives a
    mean at least as far from 0. Problems without a difference say nothing. With more than `MOST_EXACT` that do, the
    share is estimated, the observed mean counted in, so that it is never 0.
    """
    sizes = np.abs(differences).round(12)
    sizes = sizes[sizes > 0]
    reached = abs(float(differences.sum())) - 1e-9
    if len(sizes) <= MOST_EXACT:
        sums = np.zeros(1)
        for size in sizes:
            sums = np.concatenate([sums - size, sums + size])
        return float(np.mean(np.abs(sums) >= reached)), True
    values, counts = np.unique(sizes, return_counts=True)
    rng = np.random.default_rng(seed)
    num_reached = 0
    for portion in _portions(FLIPS, len(values)):
        ups = rng.binomial(counts, 0.5, size=(portion, len(values)))
        num_reached += int(np.sum(np.abs((2 * ups - counts) @ values) >= reached))
    return (1 + num_reached) / (1 + FLIPS), False


def num_more_problems(differences: Values) -> int | None:
    """Return how many problems more tell the two apart with 80% power, by the difference and variance observed.

    None where the difference is 0, or where there is one problem only. At least 1: what is there did not do.
    """
    mean, num = _mean(differences), len(differences)
    if mean == 0 or num < 2:
        return None
    needed = max(math.ceil(_POWER * _variance(differences) / mean**2), FEWEST)
    return max(needed - num, 1)


def _mean(differences: Values) -> float:
    mean = float(np.mean(differences))
    return mean if abs(mean) > 1e-12 else 0.0  # shares such as 1/3 do not add up to 0


def _variance(differences: Values) -> float:
    return float(np.var(differences, ddof=1)) if len(differences) > 1 else math.nan


def _portions(total: int, width: int) -> Iterator[int]:
    """Split `total` rows of `width` numbers into portions that memory holds."""
    rows = max(1, _CELLS // width)
    for start in range(0, total, rows):
        yield min(rows, total - start)


# --- what stands in the folders ---


def _shares(evaluation: Evaluation) -> dict[str, float | None]:
    """Return each problem's share of right among its scored outputs; None where none was scored."""
    found: dict[str, float | None] = {}
    rows = evaluation.scores.get("problems")
    for number, row in enumerate(rows if isinstance(rows, list) else [None]):
        match row:
            case {"id": str(name), "num_right": int(right), "num_scored": int(scored)} if 0 <= right <= scored:
                if name not in found:
                    found[name] = right / scored if scored else None
                    continue
        raise HoneError(
            f"{evaluation.folder / 'scores.json'}: problems[{number}] is wrong, or there twice; score it again: hone "
            f"regrade {evaluation.folder}"
        )
    return found


def _refuse_other_questions(a: Evaluation, b: Evaluation, shared: Sequence[str]) -> None:
    """Refuse two sets that give other problems the same names, as files whose rows are counted do."""
    asked, also = (read_problems(evaluation, set(shared)) for evaluation in (a, b))
    other = [name for name in shared if asked.get(name, {}).get("question") != also.get(name, {}).get("question")]
    if other:
        raise HoneError(
            f"{a.folder} and {b.folder}: {len(other)} of {len(shared)} problems have the same id and another question, "
            f"{line(other[0])} among them; compare evaluations of one benchmark"
        )


def _label(evaluation: Evaluation) -> str:
    samples = evaluation.scores["samples"]
    return f"{line(evaluation.model)}, {line(evaluation.benchmark)}, {samples} outputs a problem ({evaluation.folder})"


def _warnings(a: Evaluation, b: Evaluation) -> Iterator[str]:
    """Yield a line for each setting that differs, since a difference of scores may then come from it."""
    of_a, of_b = _settings(a), _settings(b)
    for name in dict.fromkeys([*of_a, *of_b]):
        one, other = of_a.get(name), of_b.get(name)
        if one != other:
            yield f"{name} differs: A {_shown(one)}, B {_shown(other)}"


def _settings(evaluation: Evaluation) -> dict[str, Any]:
    settings = {name: evaluation.settings.get(name) for name in _TOLD}
    decoding = settings.pop("decoding")
    if isinstance(decoding, Mapping):
        settings |= {f"decoding.{name}": value for name, value in decoding.items()}
    return settings | {"verifier": evaluation.scores["verifier"]}


def _shown(value: object) -> str:
    return "not known" if value is None or value == "" else line(value)
