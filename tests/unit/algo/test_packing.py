"""Packing: the weights by hand, what a micro-batch says, and that cutting a step into many changes nothing."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from hone.algo.packing import Aggregation, pack, token_weight
from hone.types import MicroBatch, PackedBatch, Sample, Segment


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
    assert micro.input_ids.tolist() == [5, 1, 2, 3, 4]  # the last token of a completion predicts nothing
    assert micro.segments == (Segment(1), Segment(4))
    assert micro.positions.tolist() == [0, 2, 3, 4]
    assert micro.targets.tolist() == [6, 3, 4, 5]
    assert micro.weights.tolist() == [0.5, 0.25, 0.25, 0.25]
    assert micro.advantages.tolist() == [2.0, -1.0, -1.0, -1.0]
    assert micro.old_logprobs is not None
    assert micro.ref_logprobs is not None
    np.testing.assert_allclose(micro.old_logprobs, [-0.6, -0.3, -0.4, -0.5], rtol=1e-6)
    np.testing.assert_allclose(micro.ref_logprobs, [-0.06, -0.03, -0.04, -0.05], rtol=1e-6)
    assert (batch.num_tokens, batch.num_loss_tokens) == (7, 4)


def of_two_prompts() -> list[Sample]:
    """Three completions of one prompt, one of a single token among them, with another prompt's in between."""
    return [sample([1, 2], [3, 4, 5]), sample([7], [8, 9]), sample([1, 2], [6]), sample([1, 2], [7, 8])]


def laid_out(batch: PackedBatch) -> list[tuple[list[int], list[Segment], list[int], list[int]]]:
    return [
        (micro.input_ids.tolist(), list(micro.segments), micro.positions.tolist(), micro.targets.tolist())
        for micro in batch.micro_batches
    ]


def test_a_shared_prompt_by_hand() -> None:
    batch = pack(of_two_prompts(), [0.1, 0.2, 0.3, 0.4], micro_batch_tokens=100)
    assert laid_out(batch) == [(
        [1, 2, 3, 4, 7, 7, 8],
        [Segment(2), Segment(2, 0), Segment(1, 0), Segment(2)],
        [1, 2, 3, 1, 1, 4, 5, 6],  # the prompt's last token predicts the first of each of its completions
        [3, 4, 5, 6, 7, 8, 8, 9],
    )]  # fmt: skip
    np.testing.assert_allclose(batch.micro_batches[0].weights, [0.1, 0.1, 0.1, 0.3, 0.4, 0.4, 0.2, 0.2], rtol=1e-6)
    assert (batch.num_tokens, batch.num_loss_tokens) == (15, 8)  # what is shared counts for each sample


def test_a_group_that_is_torn_apart_repeats_its_prompt() -> None:
    assert laid_out(pack(of_two_prompts(), [1.0] * 4, micro_batch_tokens=4)) == [
        ([1, 2, 3, 4], [Segment(2), Segment(2, 0)], [1, 2, 3, 1], [3, 4, 5, 6]),
        ([1, 2, 7], [Segment(3)], [1, 2], [7, 8]),
        ([7, 8], [Segment(2)], [0, 1], [8, 9]),
    ]


def test_completions_of_one_token_add_nothing_to_their_prompt() -> None:
    batch = pack([sample([1, 2], [n]) for n in (3, 4, 5)], [1.0] * 3, micro_batch_tokens=2)
    assert laid_out(batch) == [([1, 2], [Segment(2)], [1, 1, 1], [3, 4, 5])]


def grouped_samples(count: int) -> tuple[list[Sample], list[float]]:
    """Return samples of which many have a prompt in common, shuffled; each has a weight of its own."""
    rng = np.random.default_rng(1)
    prompts = [rng.integers(1, 50, length) for length in (1, 2, 4, 5, 9)]
    samples = [
        sample(prompts[rng.integers(len(prompts))], rng.integers(1, 50, rng.integers(1, 9)), float(rng.normal()))
        for _ in range(count)
    ]
    return samples, rng.permutation(np.arange(1, count + 1) / 64).tolist()


Token = tuple[tuple[int, ...], int, float, float, float, float]


def tokens_of(micro: MicroBatch) -> list[Token]:
    """Return what a micro-batch says of each completion token, first all tokens that it is predicted from."""
    ids, contexts = micro.input_ids.tolist(), []
    starts = np.cumsum([0, *(segment.length for segment in micro.segments)]).tolist()
    assert starts[-1] == len(ids)
    for number, (_, parent) in enumerate(micro.segments):
        before = [] if parent is None else ids[starts[parent] : starts[parent + 1]]
        contexts += [(*before, *ids[starts[number] : n + 1]) for n in range(starts[number], starts[number + 1])]
    assert micro.old_logprobs is not None
    assert micro.ref_logprobs is not None
    figures = (micro.targets, micro.weights, micro.advantages, micro.old_logprobs, micro.ref_logprobs)
    rows = zip(*(array.tolist() for array in figures), strict=True)
    return [(contexts[place], *row) for place, row in zip(micro.positions, rows, strict=True)]


def tokens_of_sample(one: Sample, weight: float) -> list[Token]:
    assert one.old_logprobs is not None
    assert one.ref_logprobs is not None
    whole = (*one.prompt_ids.tolist(), *one.completion_ids.tolist())
    first = len(one.prompt_ids)
    return [
        (whole[: first + n], whole[first + n], weight, float(np.float32(one.advantage)), float(old), float(ref))
        for n, (old, ref) in enumerate(zip(one.old_logprobs, one.ref_logprobs, strict=True))
    ]


@pytest.mark.parametrize("limit", [1, 12, 20, 64, 10_000])
def test_each_token_of_each_sample_is_there_once_behind_its_own_context(limit: int) -> None:
    samples, weights = grouped_samples(60)
    expected = {weight: tokens_of_sample(one, weight) for one, weight in zip(samples, weights, strict=True)}
    batch = pack(samples, weights, micro_batch_tokens=limit)
    found: dict[float, list[Token]] = {}
    for micro in batch.micro_batches:
        num_samples = len(np.unique(micro.weights))
        assert len(micro.input_ids) <= limit or num_samples == 1
        for token in tokens_of(micro):
            found.setdefault(token[2], []).append(token)
    assert found == expected
    assert batch.num_tokens == sum(one.num_tokens for one in samples)
    assert batch.num_loss_tokens == sum(map(len, expected.values()))


def test_a_prompt_is_computed_once() -> None:
    samples, weights = grouped_samples(60)
    (micro,) = pack(samples, weights, micro_batch_tokens=10_000).micro_batches
    own = sum(len(one.completion_ids) - 1 for one in samples)
    assert len(micro.input_ids) == own + 1 + 2 + 4 + 5 + 9


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
        inputs = torch.from_numpy(micro.input_ids[micro.positions])
        chosen = table[inputs].log_softmax(-1).gather(-1, torch.from_numpy(micro.targets)[:, None])[:, 0]
        loss = -(torch.from_numpy(micro.weights * micro.advantages).double() * chosen).sum()
        loss.backward()
        total += loss.item()
    assert table.grad is not None
    return total, table.grad


@pytest.mark.parametrize("limit", [1, 30, 100])
def test_loss_and_gradient_of_a_step_do_not_depend_on_how_it_is_cut(limit: int) -> None:
    samples, weights = grouped_samples(30)
    whole_loss, whole = gradient(pack(samples, weights, micro_batch_tokens=10_000).micro_batches)
    loss, cut = gradient(pack(samples, weights, micro_batch_tokens=limit).micro_batches)
    assert loss == pytest.approx(whole_loss, rel=1e-12)
    torch.testing.assert_close(cut, whole, rtol=1e-12, atol=1e-14)


def test_a_sample_longer_than_the_limit_is_a_micro_batch_of_its_own() -> None:
    batch = pack([sample([1], [2]), sample([1], [2] * 30), sample([1], [3])], [1.0, 1.0, 1.0], micro_batch_tokens=4)
    assert [len(micro.input_ids) for micro in batch.micro_batches] == [1, 30, 1]


def test_a_sample_longer_than_the_limit_shares_its_prompt_with_none() -> None:
    batch = pack([sample([1, 1], [n] * n) for n in (2, 8, 1, 1)], [1.0] * 4, micro_batch_tokens=4)
    assert [micro.input_ids.tolist() for micro in batch.micro_batches] == [[1, 1, 2], [1, 1, *[8] * 7], [1, 1]]
    assert [len(micro.targets) for micro in batch.micro_batches] == [2, 8, 2]


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
