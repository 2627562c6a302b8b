"""Two evaluations compared: figures worked out by hand, the test's error rate, and folders that do not compare."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hone.evals.compare import FLIPS, compare, interval, num_more_problems, sign_flip_test
from hone.types import HoneError

Shares = Mapping[str, tuple[int, int]]  # of each problem: how many outputs are right, of how many


def folder(path: Path, problems: Shares, **changed: Any) -> Path:
    settings = {
        "benchmark": "math500", "prompt": "boxed", "data": "built in", "seed": 0,
        "decoding": {"temperature": 0.6, "top_p": 0.95, "max_tokens": 100, "template": "chat"},
    }  # fmt: skip
    settings |= changed.pop("settings", {})
    asked = changed.pop("asked", "What is it?")
    scores = {
        "format": 1, "model": "r1", "model_hash": "", "benchmark": settings["benchmark"],
        "verifier": "hone 0.1.0: math, boxed", "settings": settings, "num_problems": len(problems), "samples": 4,
        "num_outputs": 4 * len(problems),
        "problems": [{"id": name, "num_right": r, "num_scored": n} for name, (r, n) in problems.items()],
    } | ({"problems": changed.pop("listed")} if "listed" in changed else {})  # fmt: skip
    path.mkdir()
    (path / "scores.json").write_text(json.dumps(scores | changed))
    rows = (json.dumps({"id": name, "question": f"{name}: {asked}"}) + "\n" for name in problems)
    (path / "problems.jsonl").write_text("".join(rows))
    return path


def test_figures_worked_out_by_hand(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"p1": (0, 4), "p2": (2, 4), "p3": (4, 4), "p4": (1, 4), "old": (4, 4)}, model="before")
    b = folder(tmp_path / "b", {"p4": (2, 4), "p3": (3, 4), "p2": (2, 2), "p1": (3, 4), "n": (0, 4), "m": (0, 4)})
    found = compare(a, b)
    assert (found.num_only_a, found.num_only_b, found.num_unscored) == (1, 2, 0)
    assert found.problems == (("p1", 0.0, 0.75), ("p2", 0.5, 1.0), ("p3", 1.0, 0.75), ("p4", 0.25, 0.5))
    assert [pair.difference for pair in found.problems] == [0.75, 0.5, -0.25, 0.25]
    assert found.pass_at_1_a == pytest.approx(1.75 / 4)
    assert found.pass_at_1_b == pytest.approx(3 / 4)
    assert found.difference == pytest.approx(1.25 / 4)
    # Deviations from 0.3125 are 0.4375, 0.1875, -0.5625, -0.0625: their squares add up to 0.546875.
    assert found.standard_error == pytest.approx(math.sqrt(0.546875 / 3 / 4))
    # Of the 16 signs of 0.75, 0.5, 0.25, 0.25, the sum reaches 1.25 from 0 where one of the last two is turned, or
    # neither: 3, and as many below 0.
    assert (found.p_value, found.exact) == (6 / 16, True)
    # (1.96 + 0.84)^2 x 0.18229 / 0.3125^2 = 14.63: 15 problems, of which 4 are there.
    assert found.num_more == 11
    assert found.difference_ci95[0] <= 0 < found.difference < found.difference_ci95[1]
    text = "\n".join(found.describe())
    assert f"A: before, math500, 4 outputs a problem ({a})" in text
    assert "problems in both: 4 (1 only in A, 2 only in B)" in text
    assert "pass@1  A 0.4375  B 0.7500  B - A +0.3125 [" in text
    assert "p = 0.38 (paired, every flip of signs): not told apart at 5%" in text
    assert "11 problems more" in text
    assert "warning" not in text


def test_the_other_way_round_is_the_mirror_image(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {f"p{n}": (n % 5, 4) for n in range(30)})
    b = folder(tmp_path / "b", {f"p{n}": (n % 3, 4) for n in range(30)})
    there, back = compare(a, b), compare(b, a)
    assert there == compare(a, b)
    assert there.difference == -back.difference
    assert there.p_value == back.p_value
    assert there.difference_ci95 == pytest.approx([-back.difference_ci95[1], -back.difference_ci95[0]], abs=0.02)
    assert there.num_more == back.num_more


def test_an_obvious_difference_needs_no_more_problems(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {f"p{n}": (n % 2, 4) for n in range(200)})
    b = folder(tmp_path / "b", {f"p{n}": (3 + n % 2, 4) for n in range(200)})
    found = compare(a, b)
    assert found.difference == found.difference_ci95[0] == found.difference_ci95[1] == 0.75
    assert found.p_value == 1 / (1 + FLIPS)
    assert (found.told_apart, found.exact, found.num_more) == (True, False, 0)
    assert "100,000 flips of signs): told apart at 5%; no more problems are needed" in found.describe()[-1]


def test_without_a_difference_no_number_of_problems_tells(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"p": (1, 3), "q": (0, 3), "r": (1, 3)})
    b = folder(tmp_path / "b", {"p": (0, 3), "q": (1, 3), "r": (1, 3)})
    found = compare(a, b)
    assert (found.difference, found.p_value, found.num_more) == (0.0, 1.0, None)
    assert "not by any number of problems" in found.describe()[-1]
    same = compare(a, folder(tmp_path / "same", {"p": (1, 3), "q": (0, 3), "r": (1, 3)}))
    assert (same.p_value, same.standard_error, same.difference_ci95) == (1.0, 0.0, (0.0, 0.0))


def test_one_problem_tells_nothing_and_says_so(tmp_path: Path) -> None:
    found = compare(folder(tmp_path / "a", {"p": (0, 4)}), folder(tmp_path / "b", {"p": (4, 4)}))
    assert (found.difference, found.p_value, found.num_more) == (1.0, 1.0, None)
    assert math.isnan(found.standard_error)
    assert "one problem does not say how many more" in found.describe()[-1]


def test_what_was_not_scored_is_left_out(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"p": (1, 4), "q": (0, 0), "r": (2, 4)})
    b = folder(tmp_path / "b", {"p": (2, 4), "q": (4, 4), "r": (0, 0)})
    found = compare(a, b)
    assert (found.problems, found.num_unscored) == ((("p", 0.25, 0.5),), 2)
    assert "problems in both: 1 (0 only in A, 0 only in B, 2 without a scorable output on a side)" in found.describe()
    with pytest.raises(HoneError, match="no problem has a scorable output on both sides"):
        compare(folder(tmp_path / "c", {"p": (0, 0)}), b)


# --- the statistics ---


@pytest.mark.parametrize("num", [1, 5, 10])
def test_the_exact_test_counts_every_flip(num: int) -> None:
    rng = np.random.default_rng(num)
    for _ in range(20):
        differences = rng.integers(-4, 5, num) / 4
        flipped = [abs(np.dot(signs, differences)) for signs in itertools.product([-1, 1], repeat=num)]
        expected = np.mean([value >= abs(differences.sum()) - 1e-9 for value in flipped])
        assert sign_flip_test(differences) == (expected, True)


def test_the_sampled_test_agrees_with_the_exact_one_and_with_the_sign_test(monkeypatch: pytest.MonkeyPatch) -> None:
    # 14 up and 6 down, all of one size, is McNemar's exact test: 2 P(at least 14 of 20 coins).
    differences = np.repeat([1.0, -1.0, 0.0], [14, 6, 40])
    expected = 2 * sum(math.comb(20, k) for k in range(14, 21)) / 2**20
    p_value, exact = sign_flip_test(differences)
    assert not exact
    assert p_value == pytest.approx(expected, abs=0.004)  # four standard errors of 100,000 flips
    small = np.array([0.5, 0.25, 0.75, -0.25, 0.5, 1.0, -0.5, 0.25, 0.75, 0.25, -0.125])
    by_hand, _ = sign_flip_test(small)
    monkeypatch.setattr("hone.evals.compare.MOST_EXACT", 0)
    sampled, exact = sign_flip_test(small)
    assert not exact
    assert sampled == pytest.approx(by_hand, abs=0.005)


def test_under_no_difference_p_values_are_spread_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hone.evals.compare.FLIPS", 1_000)
    rng = np.random.default_rng(1)
    p_values = []
    for seed in range(400):
        hardness = rng.beta(0.5, 0.5, 60)  # what both sides have in common
        a, b = rng.binomial(16, hardness) / 16, rng.binomial(16, hardness) / 16
        p_values.append(sign_flip_test(b - a, seed=seed)[0])
    for level in (0.05, 0.25, 0.5, 0.75):
        spread = math.sqrt(level * (1 - level) / 400)
        assert np.mean(np.array(p_values) <= level) == pytest.approx(level, abs=4 * spread + 0.01)


def test_the_interval_covers_the_true_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hone.evals.compare.RESAMPLES", 1_000)
    rng = np.random.default_rng(2)
    covered = 0
    for seed in range(300):
        hardness = rng.uniform(0.1, 0.8, 80)
        a, b = rng.binomial(8, hardness) / 8, rng.binomial(8, hardness + 0.1) / 8
        low, high = interval(b - a, seed=seed)
        covered += low <= 0.1 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_the_interval_is_that_of_drawing_problems_one_by_one() -> None:
    rng = np.random.default_rng(5)
    differences = rng.integers(-8, 9, 50) / 8
    drawn = rng.choice(differences, (20_000, 50)).mean(1)
    assert interval(differences) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.01)


def test_so_many_problems_more_do_tell_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hone.evals.compare.FLIPS", 5_000)
    rng = np.random.default_rng(3)
    pool = np.repeat([1.0, 0.0, -1.0], [3, 5, 2])  # mean 0.1, variance 0.49 (0.5444 of these ten)
    more = num_more_problems(pool)
    assert more == math.ceil(7.84 * 0.49 * 10 / 9 / 0.01) - 10 == 417
    told = [sign_flip_test(rng.choice(pool, 385), seed=seed)[0] < 0.05 for seed in range(60)]  # 7.84 x 0.49 / 0.01
    assert 0.65 <= np.mean(told) <= 0.95
    assert num_more_problems(np.ones(3)) == 3  # p of six of one sign is 2 / 64, of five 2 / 32
    assert num_more_problems(np.zeros(3)) is None


def test_thousands_of_problems_take_seconds() -> None:
    rng = np.random.default_rng(4)
    differences = rng.integers(-64, 65, 14_000) / 64
    started = time.process_time()
    low, high = interval(differences)
    assert low < differences.mean() < high
    assert 0 < sign_flip_test(differences)[0] <= 1
    assert time.process_time() - started < 8  # 10,000 draws of 14,000 problems one by one take longer


# --- settings and folders ---


def test_each_setting_that_differs_is_named(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"p": (1, 4)})
    b = folder(
        tmp_path / "b", {"p": (1, 4)}, verifier="hone 0.1.0: number, tags", benchmark="other",
        settings={
            "benchmark": "other", "prompt": "two\nlines\x1b[2J", "seed": 7,
            "decoding": {"temperature": 0.0, "top_p": 0.95, "max_tokens": 200, "template": "chat"},
        },
    )  # fmt: skip
    assert compare(a, b).warnings == (
        "benchmark differs: A math500, B other",
        "prompt differs: A boxed, B two lines[2J",
        "decoding.temperature differs: A 0.6, B 0.0",
        "decoding.max_tokens differs: A 100, B 200",
        "verifier differs: A hone 0.1.0: math, boxed, B hone 0.1.0: number, tags",
    )
    elsewhere = folder(tmp_path / "c", {"p": (1, 4)}, settings={"decoding": None})
    assert "decoding.top_p differs: A 0.95, B not known" in compare(a, elsewhere).warnings
    assert "warning: decoding.top_p differs: A 0.95, B not known" in compare(a, elsewhere).describe()


def test_evaluations_that_share_no_problem_are_refused(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"p": (1, 4)})
    b = folder(tmp_path / "b", {"q": (1, 4)}, benchmark="aime2024")
    with pytest.raises(HoneError, match=r"a \(math500\) and .*b \(aime2024\) share no problem"):
        compare(a, b)


@pytest.mark.parametrize(
    "problems",
    [
        None, "p", [], [7], [{"id": "p"}], [{"id": 7, "num_right": 1, "num_scored": 1}],
        [{"id": "p", "num_right": 2, "num_scored": 1}], [{"id": "p", "num_right": None, "num_scored": 1}],
        [{"id": "p", "num_right": 1, "num_scored": 1}] * 2,
    ],
)  # fmt: skip
def test_scores_that_are_none_are_refused(tmp_path: Path, problems: Any) -> None:
    a = folder(tmp_path / "a", {"p": (1, 4)})
    b = folder(tmp_path / "b", {}, listed=problems)
    with pytest.raises(HoneError, match=r"b/scores\.json: problems\[\d\] is wrong|share no problem"):
        compare(a, b)


def test_a_folder_without_an_evaluation_is_refused(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"p": (1, 4)})
    with pytest.raises(HoneError, match="nothing: no such folder"):
        compare(a, tmp_path / "nothing")


def test_other_problems_of_the_same_names_are_refused(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", {"p": (1, 4)}), folder(tmp_path / "b", {"p": (1, 4)}, asked="And this?")
    with pytest.raises(HoneError, match="1 of 1 problems have the same id and another question, p among them"):
        compare(a, b)
