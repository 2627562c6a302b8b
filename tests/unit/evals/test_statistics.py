"""Statistics over problems: against counting every case, closed forms, and intervals that cover what they should."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from hone.evals.statistics import bootstrap, means_and_intervals, pass_at_k, standard_error


@pytest.mark.parametrize("num_right", range(7))
def test_pass_at_k_is_the_share_of_choices_of_k_that_hold_a_right_one(num_right: int) -> None:
    outputs = [True] * num_right + [False] * (6 - num_right)
    for k in range(1, 7):
        chosen = [any(choice) for choice in combinations(outputs, k)]
        assert pass_at_k(6, num_right, k) == pytest.approx(np.mean(chosen))


@pytest.mark.parametrize("k", [0, 7])
def test_pass_at_more_than_there_are_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"pass@{k} of 6"):
        pass_at_k(6, 3, k)


def test_the_standard_error_is_over_problems() -> None:
    # Variance of 0, 0.5, 1, 0.5 is 0.5 / 3.
    assert standard_error(np.array([0, 0.5, 1, 0.5])) == pytest.approx((0.5 / 3 / 4) ** 0.5)
    assert standard_error(np.array([0.5])) == 0


def test_intervals_agree_with_the_normal_ones_where_there_are_many_problems() -> None:
    values = np.random.default_rng(1).random((900, 2)) ** 2
    low, high = bootstrap(values, np.ones_like(values))
    errors = values.std(0, ddof=1) / 30
    assert low == pytest.approx(values.mean(0) - 1.96 * errors, abs=0.15 * errors.max())
    assert high == pytest.approx(values.mean(0) + 1.96 * errors, abs=0.15 * errors.max())


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    columns = {str(number): (rng.random(60) < 0.3).astype(float).tolist() for number in range(200)}
    found = means_and_intervals(columns)
    covered = sum(low <= 0.3 <= high for low, high in (found[f"{name}_ci95"] for name in columns))
    assert 0.88 <= covered / 200 <= 0.99


def test_the_same_values_have_the_same_interval_and_one_problem_has_none_to_speak_of() -> None:
    column = {"a": [0.0, 1.0, 1.0, None, 0.5]}
    assert means_and_intervals(column) == means_and_intervals(column)
    assert means_and_intervals({"a": [0.25]}) == {"a": 0.25, "a_ci95": [0.25, 0.25]}


def test_a_problem_without_a_value_does_not_count() -> None:
    found = means_and_intervals({"a": [0.0, None, 1.0], "none": [None, None, None], "b": [1, 1, 1]})
    assert found["a"] == 0.5
    assert (found["none"], found["none_ci95"]) == (None, None)
    assert found["b_ci95"] == [1, 1]
    assert means_and_intervals({"a": []}) == {"a": None, "a_ci95": None}


def test_weights_make_a_share_of_all_instead_of_a_mean_of_shares() -> None:
    found = means_and_intervals({"a": [1.0, 0.0], "b": [1.0, 0.0]}, weights={"a": [3, 1]})
    assert (found["a"], found["b"]) == (0.75, 0.5)


def test_many_problems_are_resampled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).random((50, 1))
    whole = bootstrap(values, np.ones_like(values))
    monkeypatch.setattr("hone.evals.statistics._CELLS", 50 * 7)
    assert bootstrap(values, np.ones_like(values)) == whole
