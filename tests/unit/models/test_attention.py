"""Attention over flat batches against torch's public attention, one run after the other; layouts by hand."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hone.algo import kernels
from hone.models.attention import Layout, attend, attend_by_segment, turn_, turned
from hone.types import Segment

HEADS = {"mha": (4, 4), "gqa": (6, 2), "mqa": (4, 1)}
HEAD_DIMS = [8, 40, 64]  # less than a panel of the loops in C, panels and a rest, whole panels


needs_loops = pytest.mark.skipif(kernels.library() is None, reason="no C compiler with OpenMP here")


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


def projections(layout: Layout, heads: tuple[int, int], head_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return `qkv` and the angles of the tokens' positions."""
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(len(layout.positions), (heads[0] + 2 * heads[1]) * head_dim, generator=generator)
    angles = layout.positions[:, None] * torch.logspace(0, -2, head_dim // 2)
    return qkv, angles.cos(), angles.sin()


def with_gradient(
    attention: Callable[..., Tensor], segments: list[Segment], heads: tuple[int, int], head_dim: int
) -> tuple[Tensor, Tensor]:
    """Return the attention and, for an upstream gradient that is the same each time, that of the projections."""
    layout = Layout.of(segments)
    qkv, cos, sin = projections(layout, heads, head_dim)
    qkv.requires_grad_()
    out = attention(qkv * 1, cos, sin, layout, heads)  # it may turn what it is given in place
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(out, qkv, upstream)
    return out.detach(), gradient


@needs_loops
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("segments", LAYOUTS.values(), ids=LAYOUTS)
def test_it_is_torchs_attention_run_by_run_with_its_gradients(
    segments: list[Segment], heads: tuple[int, int], head_dim: int
) -> None:
    found, expected = (with_gradient(way, segments, heads, head_dim) for way in (attend, attend_by_segment))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["nearly alike", "a group", "a parent after other runs"])
def test_the_witness_s_gradients_are_the_slopes_of_its_values(name: str) -> None:
    layout, heads = Layout.of(LAYOUTS[name]), (2, 1)
    qkv, cos, sin = (x.double() for x in projections(layout, heads, 8))
    assert torch.autograd.gradcheck(
        lambda x: attend_by_segment(x * 1, cos, sin, layout, heads), (qkv.requires_grad_(),), fast_mode=True
    )


@needs_loops
def test_scores_that_overflow_give_nan_and_no_look_at_later_tokens() -> None:
    layout = Layout.of(runs(3))
    qkv, cos, sin = projections(layout, (1, 1), 8)
    qkv[:2, :16] = torch.tensor([-1e30, 1e30]).repeat_interleave(8)  # the first two tokens' queries and keys
    assert attend(qkv, cos.zero_() + 1, sin.zero_(), layout, (1, 1))[:2].isnan().all()


def test_a_layout_of_other_tokens_is_refused() -> None:
    qkv, cos, sin = projections(Layout.of(runs(5)), (2, 1), 8)
    for other in (runs(4), runs(5, 1)):
        with pytest.raises(ValueError, match="5 tokens"):
            attend(qkv, cos, sin, Layout.of(other), (2, 1))


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
def test_a_group_attends_as_each_whole_sequence_alone(heads: tuple[int, int]) -> None:
    """The witness too is held to something: to plain causal attention over prompt and completion in one."""
    prompt, lengths = 10, (5, 1, 7)
    layout = Layout.of([Segment(prompt), *(Segment(length, 0) for length in lengths)])
    qkv, cos, sin = projections(layout, heads, 8)
    ours = attend(qkv.clone(), cos, sin, layout, heads)
    qkv, cos, sin = qkv.double(), cos.double(), sin.double()
    witness = attend_by_segment(qkv.clone(), cos, sin, layout, heads)
    start = prompt
    for length in lengths:
        rows = torch.cat((torch.arange(prompt), torch.arange(start, start + length)))
        q, k, v = qkv[rows].unflatten(-1, (-1, 8)).split((heads[0], heads[1], heads[1]), 1)
        q, k = turned(q, cos[rows], sin[rows]), turned(k, cos[rows], sin[rows])
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        expected = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)[0].transpose(0, 1)
        torch.testing.assert_close(witness[rows], expected.flatten(1), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(ours[rows].double(), expected.flatten(1), rtol=1e-4, atol=1e-5)
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


needs_peak = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no peak of memory to be read here")
WHOLE = 3000 * 3000 * 4 / 1e6  # megabytes of all the scores of a head's queries and keys, at length 3,000


@needs_loops
@needs_peak
@pytest.mark.parametrize("segments", [runs(6000), [Segment(3000), Segment(3000, 0)]], ids=["one run", "continued"])
def test_memory_is_linear_in_the_length(segments: list[Segment]) -> None:
    assert in_a_new_process(with_gradient, attend, segments, (2, 1), 8) < WHOLE  # a fourth of the scores of one head


@needs_peak
def test_the_measure_sees_scores_that_are_whole() -> None:
    assert in_a_new_process(whole_scores, 3000) > WHOLE


def whole_scores(length: int) -> None:
    q, k = torch.randn(2, length, 8)
    (q @ k.t()).softmax(-1)


def in_a_new_process(work: Callable[..., object], *given: object) -> float:
    """Return by how many megabytes `work` raises the peak of a process that has done nothing before.

    This one will not do: its peak may be of an earlier test, and not every system lets it begin anew.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(growth, work, *given).result()


def growth(work: Callable[..., object], *given: object) -> float:
    with_gradient(attend, runs(10), (2, 1), 8)  # which loads what is loaded once
    before = peak_megabytes()
    work(*given)
    return peak_megabytes() - before


def peak_megabytes() -> float:
    status = Path("/proc/self/status").read_text("ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1000
