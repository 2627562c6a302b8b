"""The losses of single tokens, by hand, and token log-probabilities against torch's own."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hone.algo.losses import (
    binary_cross_entropy,
    bradley_terry,
    clipped,
    kl_k3,
    loss_backward,
    policy_loss,
    token_logprobs,
)

# ratio, advantage, clip_low, clip_high, loss, d loss / d logprob (-ratio * advantage, or 0 where clipped), is clipped
POLICY_LOSSES = [
    (1.0, 2.0, 0.2, 0.2, -2.0, -2.0, False),  # on policy: the policy gradient itself
    (1.0, -2.0, 0.2, 0.2, 2.0, 2.0, False),
    (1.1, 2.0, 0.2, 0.2, -2.2, -2.2, False),
    (0.9, -2.0, 0.2, 0.2, 1.8, 1.8, False),
    (1.5, 2.0, 0.2, 0.2, -2.4, 0.0, True),  # a good token that is already likelier: held at 1.2
    (0.5, -2.0, 0.2, 0.2, 1.6, 0.0, True),  # a bad token that is already rarer: held at 0.8
    (1.5, -2.0, 0.2, 0.2, 3.0, 3.0, False),  # a bad token that became likelier is pushed back in full
    (0.5, 2.0, 0.2, 0.2, -1.0, -1.0, False),  # and so is a good one that became rarer
    (1.25, 2.0, 0.2, 0.3, -2.5, -2.5, False),  # the upper side is wider than the lower one
    (0.75, -2.0, 0.2, 0.3, 1.6, 0.0, True),
    (1.25, 2.0, 0.3, 0.2, -2.4, 0.0, True),  # and the other way round
    (0.75, -2.0, 0.3, 0.2, 1.5, 1.5, False),
    (10.5, 1.0, 10.0, 10.0, -10.5, -10.5, False),  # the paper's epsilon of 10
    (12.0, 1.0, 10.0, 10.0, -11.0, 0.0, True),
    (0.01, -1.0, 10.0, 10.0, 0.01, 0.01, False),
    (3.0, 0.0, 0.2, 0.2, 0.0, 0.0, False),
]


@pytest.mark.parametrize(("ratio", "advantage", "low", "high", "loss", "gradient", "cut"), POLICY_LOSSES)
def test_the_policy_loss_and_its_gradient_on_both_sides_of_the_clip(
    ratio: float, advantage: float, low: float, high: float, loss: float, gradient: float, cut: bool
) -> None:
    old = torch.tensor([-1.7])
    logprobs = (old + math.log(ratio)).requires_grad_()
    advantages = torch.tensor([advantage])
    found = policy_loss(logprobs, old, advantages, low, high)
    found.sum().backward()
    assert logprobs.grad is not None
    assert found.item() == pytest.approx(loss, abs=1e-5)
    assert logprobs.grad.item() == pytest.approx(gradient, abs=1e-5)
    assert clipped(logprobs, old, advantages, low, high).tolist() == [cut]


def test_the_policy_loss_of_many_tokens_is_that_of_each() -> None:
    rows = [row for row in POLICY_LOSSES if row[2:4] == (0.2, 0.2)]
    ratios, advantages, losses = (torch.tensor([row[i] for row in rows]) for i in (0, 1, 4))
    torch.testing.assert_close(policy_loss(ratios.log(), torch.zeros(len(rows)), advantages, 0.2, 0.2), losses)


@pytest.mark.parametrize(
    ("log_ratio", "kl", "gradient"),
    [
        (0.0, 0.0, 0.0),
        (math.log(2), 0.306853, -1.0),  # 2 - ln 2 - 1, and 1 - 2
        (-math.log(2), 0.193147, 0.5),  # 1/2 + ln 2 - 1, and 1 - 1/2
        (math.log(4), 1.613706, -3.0),
        (-10.0, 9.000045, 0.999955),
        (1e-3, 5.001667e-7, -1.0005e-3),  # x^2 / 2 + x^3 / 6: float32 would lose this to the 1
        (-1e-3, 4.998334e-7, 9.995e-4),
    ],
)
def test_the_k3_estimate_and_its_gradient(log_ratio: float, kl: float, gradient: float) -> None:
    logprobs = torch.zeros(1, requires_grad=True)
    found = kl_k3(logprobs, torch.tensor([log_ratio]))
    found.sum().backward()
    assert logprobs.grad is not None
    assert found.item() == pytest.approx(kl, rel=1e-3, abs=1e-12)
    assert logprobs.grad.item() == pytest.approx(gradient, rel=1e-3, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1e-4, 1e-2, 1.0, 5.0])
def test_the_k3_estimate_is_never_negative(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    log_ratios = torch.randn(20_000, generator=generator) * scale
    assert kl_k3(torch.zeros(20_000), log_ratios).min() >= 0


def test_the_k3_estimate_is_the_divergence_on_average() -> None:
    # pi = (1/4, 3/4), ref = (1/2, 1/2): KL(pi || ref) = 1/4 ln 1/2 + 3/4 ln 3/2 = 0.130812
    pi, ref = torch.tensor([0.25, 0.75]), torch.tensor([0.5, 0.5])
    assert (pi * kl_k3(pi.log(), ref.log())).sum().item() == pytest.approx(0.130812, abs=1e-6)


@pytest.mark.parametrize(
    ("temperature", "logprob", "entropy"),
    [
        (1.0, -0.287682, 0.562335),  # logits 0 and ln 3: chances 1/4 and 3/4
        (0.5, -0.105361, 0.325083),  # 0 and 2 ln 3: 1/10 and 9/10
        (2.0, -0.455746, 0.656806),  # 0 and ln 3 / 2: 1 and sqrt 3 over their sum
    ],
)
def test_token_logprobs_and_entropy_by_hand(temperature: float, logprob: float, entropy: float) -> None:
    hidden, weight = torch.tensor([[1.0]]), torch.tensor([[0.0], [math.log(3)]])
    logprobs, entropies = token_logprobs(hidden, weight, torch.tensor([1]), temperature=temperature)
    assert logprobs.item() == pytest.approx(logprob, abs=1e-5)
    assert entropies.item() == pytest.approx(entropy, abs=1e-5)


NUM_TOKENS, HIDDEN, VOCABULARY = 13, 6, 11


def tensors() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(NUM_TOKENS, HIDDEN, generator=generator)
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator)
    targets = torch.randint(VOCABULARY, (NUM_TOKENS,), generator=generator)
    upstream = torch.randn(NUM_TOKENS, generator=generator)
    return hidden.requires_grad_(), weight.requires_grad_(), targets, upstream


def of_torch(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    table = (hidden @ weight.T / temperature).log_softmax(-1)
    return table.gather(-1, targets[:, None])[:, 0], -(table.exp() * table).sum(-1)


CHUNKS = [1, 3 * VOCABULARY, 4 * VOCABULARY + 5, 1 << 22]


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
@pytest.mark.parametrize("chunk_elements", CHUNKS)
def test_token_logprobs_equal_torchs_own(temperature: float, chunk_elements: int) -> None:
    hidden, weight, targets, _ = tensors()
    found = token_logprobs(hidden, weight, targets, temperature=temperature, chunk_elements=chunk_elements)
    for ours, theirs in zip(found, of_torch(hidden, weight, targets, temperature), strict=True):
        torch.testing.assert_close(ours, theirs)
        assert not ours.requires_grad


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
@pytest.mark.parametrize("chunk_elements", CHUNKS)
def test_the_gradients_of_a_loss_equal_those_of_autograd(temperature: float, chunk_elements: int, frozen: bool) -> None:
    """A loss that is not linear in the log-probabilities, whose slope thus differs from token to token."""
    hidden, weight, targets, upstream = tensors()
    weight.requires_grad_(not frozen)
    before = torch.full_like(weight, 0.5)
    weight.grad = None if frozen else before.clone()  # there is a gradient already: that of another micro-batch
    heard: dict[int, tuple[Tensor, Tensor]] = {}

    def loss(logprobs: Tensor, entropy: Tensor, rows: slice) -> Tensor:
        for place, values in zip(range(*rows.indices(NUM_TOKENS)), zip(logprobs, entropy, strict=True), strict=True):
            assert place not in heard
            heard[place] = values
        assert not entropy.requires_grad
        return (upstream[rows] * (logprobs / 2).exp()).sum()

    given = hidden.detach()
    grad_hidden = loss_backward(given, weight, targets, loss, temperature=temperature, chunk_elements=chunk_elements)
    hidden2, weight2, _, _ = tensors()
    logprobs, entropy = of_torch(hidden2, weight2, targets, temperature)
    (upstream * (logprobs / 2).exp()).sum().backward()

    assert hidden2.grad is not None
    assert weight2.grad is not None
    assert list(heard) == list(range(NUM_TOKENS))
    torch.testing.assert_close(torch.stack([heard[n][0] for n in heard]), logprobs)
    torch.testing.assert_close(torch.stack([heard[n][1] for n in heard]), entropy)
    torch.testing.assert_close(grad_hidden, hidden2.grad, rtol=1e-4, atol=1e-5)
    if frozen:
        assert weight.grad is None
    else:
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad - before, weight2.grad, rtol=1e-4, atol=1e-5)


def test_the_first_gradient_of_a_weight_starts_at_zero() -> None:
    hidden, weight, targets, upstream = tensors()
    loss_backward(hidden.detach(), weight, targets, lambda logprobs, _, rows: (logprobs * upstream[rows]).sum())
    hidden2, weight2, _, _ = tensors()
    (of_torch(hidden2, weight2, targets, 1.0)[0] * upstream).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, weight2.grad, rtol=1e-4, atol=1e-5)


def test_logprobs_stay_finite_for_huge_logits() -> None:
    hidden, weight = torch.tensor([[1.0]]), torch.tensor([[0.0], [1000.0]])
    logprobs, entropies = token_logprobs(hidden.expand(2, 1), weight, torch.tensor([0, 1]))
    assert logprobs.tolist() == [-1000.0, 0.0]
    assert entropies.tolist() == [0.0, 0.0]


def test_no_tokens_give_no_logprobs() -> None:
    logprobs, entropies = token_logprobs(torch.zeros(0, 4), torch.zeros(7, 4), torch.zeros(0, dtype=torch.int64))
    assert logprobs.shape == entropies.shape == (0,)


def test_no_tensor_of_tokens_times_vocabulary_is_ever_whole(largest: type[Any]) -> None:
    hidden, weight = torch.randn(64, 32), torch.randn(50, 32, requires_grad=True)
    targets = torch.arange(64) % 50

    def loss(logprobs: Tensor, entropy: Tensor, rows: slice) -> Tensor:
        return logprobs.sum()

    for chunk_elements, least, most in ((250, 250, 64 * 32), (1 << 23, 64 * 50, 64 * 50)):  # hidden itself has 64 * 32
        with largest() as forward:
            token_logprobs(hidden, weight, targets, chunk_elements=chunk_elements)
        with largest() as both:
            loss_backward(hidden, weight, targets, loss, chunk_elements=chunk_elements)
        assert least <= forward.elements <= most
        assert least <= both.elements <= most


@pytest.mark.parametrize(
    ("chosen", "rejected", "loss", "gradient"),  # -log sigmoid(d), and d loss / d chosen = sigmoid(d) - 1
    [
        (0.0, 0.0, math.log(2), -0.5),
        (5.0, 5.0, math.log(2), -0.5),  # only the difference counts
        (1.0 + math.log(3), 1.0, math.log(4 / 3), -0.25),  # sigmoid(ln 3) = 3/4
        (1.0, 1.0 + math.log(3), math.log(4), -0.75),
        (1000.0, 0.0, 0.0, 0.0),
        (0.0, 1000.0, 1000.0, -1.0),
    ],
)
def test_the_loss_of_a_pair_and_its_gradient(chosen: float, rejected: float, loss: float, gradient: float) -> None:
    better, worse = (torch.tensor([score], requires_grad=True) for score in (chosen, rejected))
    found = bradley_terry(better, worse)
    found.sum().backward()
    assert better.grad is not None
    assert worse.grad is not None
    assert found.item() == pytest.approx(loss, abs=1e-6)
    assert better.grad.item() == pytest.approx(gradient, abs=1e-6)
    assert worse.grad.item() == pytest.approx(-gradient, abs=1e-6)


@pytest.mark.parametrize(
    ("score", "label", "loss", "gradient"),  # d loss / d score = sigmoid(score) - label
    [
        (0.0, 1.0, math.log(2), -0.5),
        (0.0, 0.0, math.log(2), 0.5),
        (math.log(3), 1.0, math.log(4 / 3), -0.25),
        (math.log(3), 0.0, math.log(4), 0.75),
        (1000.0, 0.0, 1000.0, 1.0),
        (-1000.0, 0.0, 0.0, 0.0),
    ],
)
def test_the_loss_of_a_labelled_response_and_its_gradient(
    score: float, label: float, loss: float, gradient: float
) -> None:
    scores = torch.tensor([score], requires_grad=True)
    found = binary_cross_entropy(scores, torch.tensor([label]))
    found.sum().backward()
    assert scores.grad is not None
    assert found.item() == pytest.approx(loss, abs=1e-6)
    assert scores.grad.item() == pytest.approx(gradient, abs=1e-6)
