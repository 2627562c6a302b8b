"""Attention over flat batches against torch's public attention, one run after the other; layouts by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hone.models.attention import Layout, attend, attend_by_segment, turn_, turned
from hone.types import Segment

HEADS = {"mha": (4, 4), "gqa": (6, 2), "mqa": (4, 1)}
HEAD_DIM = 8


def runs(*lengths: int) -> list[Segment]:
    return [Segment(length) for length in lengths]


def random_layout(seed: int) -> list[Segment]:
    """Mix single runs with prompts of several completions, the lengths ragged and 1 among them."""
    rng = np.random.default_rng(seed)
    segments: list[Segment] = []
    for _ in range(6):
        parent = len(segments)
        segments.append(Segment(int(rng.choice([1, 2, 7, 16, 33]))))
        segments += [Segment(int(rng.choice([1, 3, 8, 9, 20, 40])), parent) for _ in range(rng.integers(0, 4))]
    return segments


LAYOUTS: dict[str, list[Segment]] = {
    "one": runs(37),
    "one token": runs(1),
    "single tokens": runs(1, 1, 1),
    "alike": runs(12, 12, 12),
    "nearly alike": runs(12, 10, 11, 9),
    "ragged": runs(3, 50, 1, 20, 48, 2),
    "alike, not side by side": runs(9, 2, 9, 2, 9),
    "a group": [Segment(10), Segment(5, 0), Segment(1, 0), Segment(7, 0)],
    "a group of equals": [Segment(4), Segment(6, 0), Segment(6, 0)],
    "a prompt of one token": [Segment(1), Segment(3, 0), Segment(4, 0)],
    "a parent after other runs": [*runs(3, 8), Segment(6), Segment(4, 2), Segment(5, 2), Segment(2)],
    "siblings apart": [Segment(6), Segment(4, 0), Segment(5), Segment(4, 0)],
    "two groups": [Segment(6), Segment(4, 0), Segment(5, 0), Segment(7), Segment(1, 3), Segment(9, 3)],
    "longer than a block of the kernel": [Segment(150), Segment(70, 0), Segment(600, 0), Segment(130)],
    **{f"random {seed}": random_layout(seed) for seed in range(6)},
}


def projections(layout: Layout, heads: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return `qkv` and the angles of the tokens' positions."""
    generator = torch.Generator().manual_seed(0)
    size = (heads[0] + 2 * heads[1]) * HEAD_DIM
    qkv = torch.randn(len(layout.positions), size, generator=generator, dtype=dtype)
    angles = layout.positions[:, None] * torch.tensor([1.0, 0.3, 0.1, 0.02], dtype=dtype)
    return qkv, angles.cos(), angles.sin()


def with_gradient(
    attention: Callable[..., Tensor], segments: list[Segment], heads: tuple[int, int], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the attention and, for an upstream gradient that is the same each time, that of the projections."""
    layout = Layout.of(segments)
    qkv, cos, sin = projections(layout, heads, dtype)
    qkv.requires_grad_()
    out = attention(qkv * 1, cos, sin, layout, heads)  # it may turn what it is given in place
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    (gradient,) = torch.autograd.grad(out, qkv, upstream)
    return out.detach(), gradient


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("segments", LAYOUTS.values(), ids=LAYOUTS)
def test_it_is_torchs_attention_run_by_run_with_its_gradients(segments: list[Segment], heads: tuple[int, int]) -> None:
    for dtype, atol in ((torch.float32, 2e-5), (torch.float64, 1e-12)):
        found, expected = (with_gradient(way, segments, heads, dtype) for way in (attend, attend_by_segment))
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4 if dtype == torch.float32 else 1e-9, atol=atol)


@pytest.mark.parametrize("name", ["nearly alike", "a group", "a parent after other runs"])
def test_the_gradients_are_the_slopes_of_the_values(name: str) -> None:
    layout, heads = Layout.of(LAYOUTS[name]), (2, 1)
    qkv, cos, sin = projections(layout, heads, torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: attend(x * 1, cos, sin, layout, heads), (qkv.requires_grad_(),), fast_mode=True
    )


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
def test_a_group_attends_as_each_whole_sequence_alone(heads: tuple[int, int]) -> None:
    """The witness too is held to something: to plain causal attention over prompt and completion in one."""
    prompt, lengths = 10, (5, 1, 7)
    layout = Layout.of([Segment(prompt), *(Segment(length, 0) for length in lengths)])
    qkv, cos, sin = projections(layout, heads, torch.float64)
    witness = attend_by_segment(qkv.clone(), cos, sin, layout, heads)
    ours = attend(qkv.clone(), cos, sin, layout, heads)
    start = prompt
    for length in lengths:
        rows = torch.cat((torch.arange(prompt), torch.arange(start, start + length)))
        q, k, v = qkv[rows].unflatten(-1, (-1, HEAD_DIM)).split((heads[0], heads[1], heads[1]), 1)
        q, k = turned(q, cos[rows], sin[rows]), turned(k, cos[rows], sin[rows])
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        expected = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)[0].transpose(0, 1)
        for found in (witness, ours):
            torch.testing.assert_close(found[rows], expected.flatten(1), rtol=1e-9, atol=1e-12)
        start += length


def test_a_layout_by_hand() -> None:
    layout = Layout.of([Segment(3), Segment(2, 0), Segment(1), Segment(2, 0), Segment(1, 0), Segment(4)])
    assert layout.positions.tolist() == [0, 1, 2, 3, 4, 0, 3, 4, 3, 0, 1, 2, 3]
    assert layout.runs.tolist() == [[0, 3, 5, 6, 8, 9], [3, 2, 1, 2, 1, 4], [-1, 0, -1, 0, 0, -1]]


@pytest.mark.parametrize("parents", [[0], [None, 2, None], [None, 0, 1]])
def test_a_parent_is_an_earlier_run_without_one(parents: list[int | None]) -> None:
    with pytest.raises(ValueError, match="continues"):
        Layout.of([Segment(2, parent) for parent in parents])


def test_a_turn_by_hand() -> None:
    """A quarter turn takes (1, 0) to (0, 1); the first half of a head is paired with its second."""
    x = torch.tensor([[[1.0, 2.0, 0.0, 5.0]]])
    cos, sin = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    assert turned(x, cos, sin).tolist() == [[[0.0, 2.0, 1.0, 5.0]]]
    turn_(x, cos, sin)
    assert x.tolist() == [[[0.0, 2.0, 1.0, 5.0]]]


@pytest.mark.parametrize("segments", [runs(700), [Segment(300), Segment(400, 0)]], ids=["one run", "continued"])
def test_no_tensor_of_tokens_times_tokens_is_ever_whole(segments: list[Segment], largest: type[Any]) -> None:
    with largest() as ours:
        with_gradient(attend, segments, (2, 1), torch.float32)
    assert 700 * 4 * HEAD_DIM <= ours.elements < 300 * 400


def test_the_measure_sees_scores_that_are_whole(largest: type[Any]) -> None:
    q, k = torch.randn(400, HEAD_DIM), torch.randn(700, HEAD_DIM)
    with largest() as whole:
        (q @ k.t()).softmax(-1)
    assert whole.elements == 400 * 700
