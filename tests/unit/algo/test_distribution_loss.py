"""Divergences of whole distributions: values by hand, gradients as torch's own, and never a whole table."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hone.algo.losses import Direction, distribution_kl

NUM_TOKENS, HIDDEN, TEACHER_HIDDEN, VOCABULARY = 13, 6, 9, 11
DIRECTIONS: tuple[Direction, ...] = ("forward", "reverse")


@pytest.mark.parametrize(
    ("direction", "kl", "gradient"),
    [
        # student (1/4, 3/4), teacher (1/2, 1/2); the gradient is that of the second logit
        ("forward", 0.143841, 0.25),  # 1/2 ln 2 + 1/2 ln 2/3; 3/4 - 1/2
        ("reverse", 0.130812, 0.205990),  # 1/4 ln 1/2 + 3/4 ln 3/2; 3/4 (ln 3/2 - 0.130812)
    ],
)
def test_the_divergence_and_its_gradient_by_hand(direction: Direction, kl: float, gradient: float) -> None:
    weight = torch.tensor([[0.0], [math.log(3)]], requires_grad=True)
    found, entropy = distribution_kl(torch.ones(1, 1), weight, torch.ones(1, 2), torch.zeros(2, 2), direction)
    found.sum().backward()
    assert found.item() == pytest.approx(kl, abs=1e-6)
    assert entropy.item() == pytest.approx(0.562335, abs=1e-6)
    assert weight.grad is not None
    assert weight.grad[:, 0].tolist() == pytest.approx([-gradient, gradient], abs=1e-6)


def tensors() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the student's states and weight, the teacher's, and the gradient that comes back."""
    generator = torch.Generator().manual_seed(1)
    shapes = (NUM_TOKENS, HIDDEN), (VOCABULARY, HIDDEN), (NUM_TOKENS, TEACHER_HIDDEN), (VOCABULARY, TEACHER_HIDDEN)
    hidden, weight, taught, teacher_weight = (torch.randn(shape, generator=generator) for shape in shapes)
    upstream = torch.randn(NUM_TOKENS, generator=generator)
    return hidden.requires_grad_(), weight.requires_grad_(), taught, teacher_weight, upstream


def plain(student: Tensor, teacher: Tensor, direction: Direction) -> Tensor:
    """Return the divergences [T] of logits [T, V] by torch's own function, which takes KL(target || input)."""
    p, q = student.log_softmax(-1), teacher.log_softmax(-1)
    given = (p, q) if direction == "forward" else (q, p)
    return F.kl_div(*given, reduction="none", log_target=True).sum(-1)


@pytest.mark.parametrize("chunk_elements", [1, 3 * VOCABULARY, 4 * VOCABULARY + 5, 1 << 22])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_values_and_gradients_are_torchs_own(direction: Direction, chunk_elements: int) -> None:
    hidden, weight, taught, teacher_weight, upstream = tensors()
    kl, entropies = distribution_kl(hidden, weight, taught, teacher_weight, direction, chunk_elements=chunk_elements)
    (kl * upstream).sum().backward()

    hidden2, weight2, _, _, _ = tensors()
    expected = plain(hidden2 @ weight2.T, taught @ teacher_weight.T, direction)
    (expected * upstream).sum().backward()

    torch.testing.assert_close(kl, expected, rtol=1e-5, atol=1e-5)
    table = (hidden2 @ weight2.T).log_softmax(-1)
    torch.testing.assert_close(entropies, -(table.exp() * table).sum(-1))
    assert hidden.grad is not None
    assert weight.grad is not None
    torch.testing.assert_close(hidden.grad, hidden2.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weight.grad, weight2.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_against_itself_loss_and_gradients_are_exactly_zero(direction: Direction) -> None:
    hidden, weight, _, _, upstream = tensors()
    kl, _ = distribution_kl(hidden, weight, hidden.detach(), weight.detach(), direction)
    (kl * upstream).sum().backward()
    assert kl.abs().max() == 0
    assert hidden.grad is not None
    assert weight.grad is not None
    assert hidden.grad.abs().max() == weight.grad.abs().max() == 0


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("longer", ["student", "teacher"])
def test_rows_that_pad_one_vocabulary_are_left_out(longer: str, direction: Direction) -> None:
    hidden, weight, taught, teacher_weight, _ = tensors()
    expected, _ = distribution_kl(hidden, weight, taught, teacher_weight, direction)
    tables = {"student": weight, "teacher": teacher_weight}
    tables[longer] = F.pad(tables[longer], (0, 0, 0, 5), value=3.0)
    found, _ = distribution_kl(hidden, tables["student"], taught, tables["teacher"], direction)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_divergences_stay_finite_for_huge_logits(direction: Direction) -> None:
    weight = torch.tensor([[0.0], [1000.0]], requires_grad=True)
    kl, entropy = distribution_kl(
        torch.ones(1, 1), weight, torch.ones(1, 1), torch.tensor([[1000.0], [0.0]]), direction
    )
    kl.sum().backward()
    assert kl.item() == pytest.approx(1000)
    assert entropy.item() == 0
    assert weight.grad is not None
    assert weight.grad.isfinite().all()


def test_no_tokens_give_no_divergences() -> None:
    kl, entropies = distribution_kl(
        torch.zeros(0, 4), torch.zeros(7, 4), torch.zeros(0, 5), torch.zeros(7, 5), "forward"
    )
    assert kl.shape == entropies.shape == (0,)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_no_tensor_of_tokens_times_vocabulary_is_ever_whole(direction: Direction, largest: Any) -> None:
    hidden, weight = torch.randn(64, 4, requires_grad=True), torch.randn(50, 4, requires_grad=True)
    teacher = torch.randn(64, 4), torch.randn(50, 4)
    with largest() as chunked:
        distribution_kl(hidden, weight, *teacher, direction, chunk_elements=250)[0].sum().backward()
    assert 200 <= chunked.elements <= 256  # 5 rows of 50 logits; hidden itself has 64 * 4
    with largest() as whole:
        distribution_kl(hidden, weight, *teacher, direction)[0].sum().backward()
    assert whole.elements == 64 * 50


@pytest.mark.parametrize(("direction", "beta"), [("forward", 0.0), ("reverse", 1.0)])
def test_the_divergences_are_those_of_trls_gkd(
    direction: Direction, beta: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL pads, masks by the label -100 and averages over what is left; ours is its mean over the tokens."""
    pytest.importorskip("trl", minversion="1.16")
    monkeypatch.setitem(os.environ, "TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.gkd import GKDTrainer

    hidden, weight, taught, teacher_weight, _ = tensors()
    kl, _ = distribution_kl(hidden, weight, taught, teacher_weight, direction)
    kl.mean().backward()
    hidden2, weight2, _, _, _ = tensors()
    student, teacher = (hidden2 @ weight2.T)[None], (taught @ teacher_weight.T)[None]
    labels = torch.zeros(1, NUM_TOKENS, dtype=torch.int64)
    expected = GKDTrainer.generalized_jsd_loss(student, teacher, labels=labels, beta=beta)
    expected.backward()
    assert kl.mean().item() == pytest.approx(expected.item(), abs=1e-5)
    torch.testing.assert_close(weight.grad, weight2.grad, rtol=1e-5, atol=1e-5)
