"""What can be said of figures over problems: unbiased pass@k, standard errors, intervals by bootstrap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 5_000
_CELLS = 4_000_000  # counts of resampled problems that are held at once

Values = NDArray[np.float64]


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Return the unbiased estimate that one of k outputs is right, from n of which c are: 1 - C(n-c, k) / C(n, k).

    Source: Chen et al., Evaluating Large Language Models Trained on Code (2021), equation 1.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"pass@{k} of {num_samples} outputs")
    if num_samples - num_right < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(num_samples - num_right + 1, num_samples + 1)))


def standard_error(values: Values) -> float:
    """Return the standard error of the mean of per-problem values [P]: outputs of one problem are not independent.

    Source: Miller, Adding Error Bars to Evals (2024), clustered standard errors. 0 for a single problem.
    """
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def bootstrap(values: Values, weights: Values, *, seed: int = 0) -> tuple[Values, Values]:
    """Return the bounds [F] of the 95% intervals of F weighted means over P problems: `values`, `weights` [P, F].

    Problems are drawn with replacement. The same seed, the same bounds; NaN where a figure has no weight at all.
    """
    num_problems = len(values)
    rng = np.random.default_rng(seed)
    rows = max(1, _CELLS // num_problems)
    means = []
    for start in range(0, RESAMPLES, rows):
        size = min(rows, RESAMPLES - start)
        counts = rng.multinomial(num_problems, np.full(num_problems, 1 / num_problems), size=size).astype(np.float64)
        with np.errstate(invalid="ignore"):
            means.append((counts @ (values * weights)) / (counts @ weights))
    found = np.concatenate(means)
    low, high = np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    some = weights.any(0)
    low[some], high[some] = np.nanquantile(found[:, some], [0.025, 0.975], axis=0)
    return low, high


def means_and_intervals(
    columns: Mapping[str, Sequence[float | None]],
    *,
    weights: Mapping[str, Sequence[float]] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return for each column of per-problem values its mean as NAME and its interval as NAME_ci95; None has no value.

    All columns have the same P problems, which are resampled together. `weights` are for columns that have such.
    """
    given = np.array([[np.nan if v is None else float(v) for v in column] for column in columns.values()]).T
    if not given.size:
        return {key: None for name in columns for key in (name, f"{name}_ci95")}
    weight = np.stack([np.array((weights or {}).get(name, np.ones(len(given))), float) for name in columns], 1)
    weight = np.where(np.isnan(given), 0.0, weight)
    values = np.nan_to_num(given)
    low, high = bootstrap(values, weight, seed=seed)
    found: dict[str, Any] = {}
    for number, name in enumerate(columns):
        total = weight[:, number].sum()
        found[name] = float((values[:, number] * weight[:, number]).sum() / total) if total else None
        found[f"{name}_ci95"] = [float(low[number]), float(high[number])] if total else None
    return found
