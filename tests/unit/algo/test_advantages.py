"""Group-relative advantages, by hand."""

import numpy as np
import pytest

from hone.algo.advantages import group_advantages, has_signal

YES, NO = True, False


@pytest.mark.parametrize(
    ("rewards", "scorable", "advantages"),
    [
        # mean 1/2, std 1/2
        ([1, 0, 0, 1], [YES] * 4, [1, -1, -1, 1]),
        # mean 1/4, std sqrt(3)/4
        ([0, 0, 0, 1], [YES] * 4, [-0.577350, -0.577350, -0.577350, 1.732051]),
        # mean 2, std sqrt((4 + 0 + 4) / 3) = 1.632993
        ([0, 2, 4], [YES] * 3, [-1.224745, 0, 1.224745]),
        # The size of the rewards does not matter, nor does a constant added to all.
        ([107, 105, 105, 107], [YES] * 4, [1, -1, -1, 1]),
        # Equal rewards give no signal.
        ([1, 1, 1], [YES] * 3, [0, 0, 0]),
        ([0, 0, 0], [YES] * 3, [0, 0, 0]),
        ([0.1, 0.1, 0.1 + 1e-8], [YES] * 3, [0, 0, 0]),
        # What could not be scored takes no part: mean 1/3, std sqrt(2)/3.
        ([1, 0, 5, 0], [YES, YES, NO, YES], [1.414214, -0.707107, 0, -0.707107]),
        ([1, 1, 0], [YES, YES, NO], [0, 0, 0]),  # only the masked one differs
        ([1, 0, 0], [YES, NO, NO], [0, 0, 0]),  # one alone is no group
        ([1, 0, 0], [NO, NO, NO], [0, 0, 0]),
        ([float("nan"), 0, 1], [NO, YES, YES], [0, -1, 1]),
        ([1], [YES], [0]),
        ([], [], []),
    ],
)
def test_an_advantage_is_the_distance_from_the_groups_mean_in_standard_deviations(
    rewards: list[float], scorable: list[bool], advantages: list[float]
) -> None:
    found = group_advantages(np.array(rewards, np.float32), np.array(scorable, bool))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, advantages, atol=1e-6)


@pytest.mark.parametrize(
    ("rewards", "scorable", "advantages"),
    [
        ([0, 0, 0, 1], [YES] * 4, [-0.25, -0.25, -0.25, 0.75]),
        ([0, 2, 4], [YES] * 3, [-2, 0, 2]),
        ([1, 0, 5, 0], [YES, YES, NO, YES], [2 / 3, -1 / 3, 0, -1 / 3]),
        ([3, 3], [YES] * 2, [0, 0]),
    ],
)
def test_without_the_standard_deviation_it_is_the_plain_distance(
    rewards: list[float], scorable: list[bool], advantages: list[float]
) -> None:
    found = group_advantages(np.array(rewards, np.float32), np.array(scorable, bool), divide_by_std=False)
    np.testing.assert_allclose(found, advantages, atol=1e-6)


def test_the_rewards_are_left_as_they_are() -> None:
    rewards = np.array([0, 1, 3], np.float32)
    group_advantages(rewards, np.array([YES, YES, NO]))
    assert rewards.tolist() == [0, 1, 3]


@pytest.mark.parametrize(
    ("rewards", "scorable", "signal"),
    [
        ([0, 1], [YES, YES], True),
        ([0, 1e-5], [YES, YES], True),
        ([1, 1], [YES, YES], False),
        ([0, 1], [YES, NO], False),
        ([0, 1], [NO, NO], False),
        ([], [], False),
    ],
)
def test_a_group_has_signal_where_two_scorable_rewards_differ(
    rewards: list[float], scorable: list[bool], signal: bool
) -> None:
    assert has_signal(np.array(rewards, np.float32), np.array(scorable, bool)) is signal
