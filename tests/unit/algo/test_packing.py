"""Packing: the weights by hand, what a micro-batch says, and that cutting a step into many changes nothing."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from hone.algo.packing import Aggregation, pack, token_weight
from hone.types import MicroBatch, PackedBatch, Sample


def sample(
    prompt: Sequence[int], completion: Sequence[int], advantage: float = 1.0, *, logprobs: bool = True
) -> Sample:
    """Make a sample whose old and reference log-probabilities are told apart by its own ids."""
    ids = np.asarray(completion, np.float32)
    return Sample(
        prompt_ids=np.asarray(prompt, np.int64),
        completion_ids=np.asarray(completion, np.int64),
        advantage=advantage,
        old_logprobs=-ids / 10 if logprobs else None,
        ref_logprobs=-ids / 100 if logprobs else None,
    )


def random_samples(count: int) -> tuple[list[Sample], list[float]]:
    rng = np.random.default_rng(0)
    samples = [
        sample(rng.integers(1, 50, rng.integers(1, 6)), rng.integers(1, 50, rng.integers(1, 20)), float(rng.normal()))
        for _ in range(count)
    ]
    return samples, rng.random(count).tolist()


@pytest.mark.parametrize(
    ("how", "weight"),
    [
        ("output", 1 / 32),  # 8 outputs, 4 tokens in this one
        ("token", 1 / 100),
        ("constant", 1 / 256),  # 8 outputs of 32 tokens at most
    ],
)
def test_the_weight_of_a_token(how: Aggregation, weight: float) -> None:
    of_four = sample([1], [2, 3, 4, 5])
    assert token_weight(of_four, how, num_outputs=8, num_tokens=100, max_tokens=32) == weight


@pytest.mark.parametrize(
    ("how", "loss"),
    [
        ("output", 2.5),  # (1 + (2 + 4 + 6) / 3) / 2
        ("token", 3.25),  # (1 + 2 + 4 + 6) / 4
        ("constant", 1.625),  # 13 / (2 * 4)
    ],
)
def test_the_weighted_sum_is_the_average_that_an_aggregation_stands_for(how: Aggregation, loss: float) -> None:
    # The token losses of an output of 1 token and of one of 3; no completion may be longer than 4.
    token_losses = {10: 1.0, 20: 2.0, 21: 4.0, 22: 6.0}
    samples = [sample([1], [10]), sample([1], [20, 21, 22])]
    weights = [token_weight(s, how, num_outputs=2, num_tokens=4, max_tokens=4) for s in samples]
    for limit in (1, 8, 100):
        batch = pack(samples, weights, micro_batch_tokens=limit)
        total = sum(
            weight * token_losses[target]
            for micro in batch.micro_batches
            for weight, target in zip(micro.weights.tolist(), micro.targets.tolist(), strict=True)
        )
        assert total == pytest.approx(loss)


def test_outputs_without_an_advantage_count_in_the_average_though_they_are_left_out() -> None:
    kept = sample([1], [10, 11])
    # Four outputs and 20 tokens in the whole step, of which one output of two tokens is packed.
    assert token_weight(kept, "output", num_outputs=4, num_tokens=20, max_tokens=8) == 1 / 8
    assert token_weight(kept, "token", num_outputs=4, num_tokens=20, max_tokens=8) == 1 / 20
    assert token_weight(kept, "constant", num_outputs=4, num_tokens=20, max_tokens=8) == 1 / 32


def test_a_micro_batch_by_hand() -> None:
    batch = pack([sample([5], [6], 2.0), sample([1, 2], [3, 4, 5], -1.0)], [0.5, 0.25], micro_batch_tokens=10)
    (micro,) = batch.micro_batches
    assert micro.input_ids.tolist() == [[1, 2, 3, 4, 5], [5, 6, 0, 0, 0]]  # the longest first, padded on the right
    assert micro.positions.tolist() == [1, 2, 3, 5]  # where 2, 3, 4 stand in the first row, and 5 in the second
    assert micro.targets.tolist() == [3, 4, 5, 6]
    assert micro.weights.tolist() == [0.25, 0.25, 0.25, 0.5]
    assert micro.advantages.tolist() == [-1.0, -1.0, -1.0, 2.0]
    assert micro.old_logprobs is not None
    assert micro.ref_logprobs is not None
    np.testing.assert_allclose(micro.old_logprobs, [-0.3, -0.4, -0.5, -0.6], rtol=1e-6)
    np.testing.assert_allclose(micro.ref_logprobs, [-0.03, -0.04, -0.05, -0.06], rtol=1e-6)
    assert (batch.num_tokens, batch.num_loss_tokens) == (7, 4)


@pytest.mark.parametrize("limit", [1, 20, 64, 10_000])
def test_the_token_before_each_target_stands_at_its_position(limit: int) -> None:
    samples, weights = random_samples(40)
    for micro in pack(samples, weights, micro_batch_tokens=limit).micro_batches:
        flat = micro.input_ids.reshape(-1)
        width = micro.input_ids.shape[1]
        np.testing.assert_array_equal(flat[micro.positions + 1], micro.targets)
        assert (micro.positions % width < width - 1).all()  # no target lies in the next row


def rows(batch: PackedBatch) -> list[list[int]]:
    """Return the sequences of a batch without their padding, whose id 0 no sample here uses."""
    return [row[row > 0].tolist() for micro in batch.micro_batches for row in micro.input_ids]


@pytest.mark.parametrize("limit", [1, 20, 64, 200])
def test_many_micro_batches_hold_what_one_does(limit: int) -> None:
    samples, weights = random_samples(40)
    whole, cut = (pack(samples, weights, micro_batch_tokens=tokens) for tokens in (10_000, limit))
    assert len(whole.micro_batches) == 1
    assert len(cut.micro_batches) > 1
    assert rows(cut) == rows(whole)
    assert sorted(rows(cut)) == sorted([*s.prompt_ids, *s.completion_ids] for s in samples)
    for name in ("targets", "weights", "advantages", "old_logprobs", "ref_logprobs"):
        joined = np.concatenate([getattr(micro, name) for micro in cut.micro_batches])
        np.testing.assert_array_equal(joined, getattr(whole.micro_batches[0], name))
    assert (cut.num_tokens, cut.num_loss_tokens) == (whole.num_tokens, whole.num_loss_tokens)
    assert whole.num_tokens == sum(map(len, rows(whole)))
    assert whole.num_loss_tokens == len(whole.micro_batches[0].targets)


def test_each_sample_keeps_its_own_weight_and_advantage() -> None:
    samples = [sample([1], [id_] * length, float(id_)) for id_, length in ((7, 2), (8, 5), (9, 1))]
    weights = [0.7, 0.8, 0.9]
    for limit in (1, 6, 100):
        for micro in pack(samples, weights, micro_batch_tokens=limit).micro_batches:
            np.testing.assert_array_equal(micro.advantages, micro.targets)
            np.testing.assert_allclose(micro.weights, micro.targets / 10, rtol=1e-6)


def gradient(micro_batches: Sequence[MicroBatch]) -> tuple[float, torch.Tensor]:
    """Return the loss of a step and its gradient for a model that predicts a token from the one before it."""
    table = torch.randn(50, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    total = 0.0
    for micro in micro_batches:
        inputs = torch.from_numpy(micro.input_ids.reshape(-1)[micro.positions])
        chosen = table[inputs].log_softmax(-1).gather(-1, torch.from_numpy(micro.targets)[:, None])[:, 0]
        loss = -(torch.from_numpy(micro.weights * micro.advantages).double() * chosen).sum()
        loss.backward()
        total += loss.item()
    assert table.grad is not None
    return total, table.grad


@pytest.mark.parametrize("limit", [1, 30, 100])
def test_loss_and_gradient_of_a_step_do_not_depend_on_how_it_is_cut(limit: int) -> None:
    samples, weights = random_samples(30)
    whole_loss, whole = gradient(pack(samples, weights, micro_batch_tokens=10_000).micro_batches)
    loss, cut = gradient(pack(samples, weights, micro_batch_tokens=limit).micro_batches)
    assert loss == pytest.approx(whole_loss, rel=1e-12)
    torch.testing.assert_close(cut, whole, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("limit", [1, 20, 64, 200])
def test_a_micro_batch_stays_within_its_limit_unless_one_sample_alone_is_longer(limit: int) -> None:
    samples, weights = random_samples(40)
    for micro in pack(samples, weights, micro_batch_tokens=limit).micro_batches:
        assert micro.input_ids.size <= limit or len(micro.input_ids) == 1


def test_a_sample_longer_than_the_limit_is_a_micro_batch_of_its_own() -> None:
    batch = pack([sample([1], [2]), sample([1], [2] * 30), sample([1], [3])], [1.0, 1.0, 1.0], micro_batch_tokens=4)
    assert [micro.input_ids.shape for micro in batch.micro_batches] == [(1, 31), (2, 2)]


def test_supervised_samples_have_no_logprobs() -> None:
    (micro,) = pack([sample([1], [2], logprobs=False)], [1.0], micro_batch_tokens=8).micro_batches
    assert micro.old_logprobs is None
    assert micro.ref_logprobs is None


def test_samples_with_and_without_logprobs_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="some samples of a micro-batch have logprobs and some have none"):
        pack([sample([1], [2]), sample([1], [2], logprobs=False)], [1.0, 1.0], micro_batch_tokens=8)


def test_no_samples_give_no_micro_batches() -> None:
    batch = pack([], [], micro_batch_tokens=8)
    assert (batch.micro_batches, batch.num_tokens, batch.num_loss_tokens) == ((), 0, 0)
