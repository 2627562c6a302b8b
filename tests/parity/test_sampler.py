"""The sampler against the trainer, and against itself: what is drawn does not depend on who shares the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hone.engine.local.sampler import LIKELIEST, WIDE, Batch, Request, Running, Sampler, inverse_cdf, truncate
from hone.engine.local.trainer import Trainer
from hone.models.cache import Cache
from hone.models.decoder import Decoder, DecoderConfig, Linear
from hone.models.tokenizer import Tokenizer, word_tokenizer
from hone.types import HoneError, Prompt, Rollout, RunError, Sample, SamplingParams

VOCABULARY = 23
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "tie_word_embeddings": False},
    "llama-biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 12, "num_key_value_heads": 1},
}


def decoder(family: str = "qwen2", seed: int = 3, vocab_size: int = VOCABULARY) -> Decoder:
    """Make a tiny model whose weights are large, so that its distributions are far from uniform."""
    shape = {
        "vocab_size": vocab_size, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
    }  # fmt: skip
    model = Decoder(DecoderConfig(**{**shape, **FAMILIES[family]}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.2, generator=generator)
            if "norm" in name:
                parameter.add_(1)
    return model


def words(vocab_size: int = VOCABULARY) -> Tokenizer:
    plain = [f"w{number}" for number in range(2, vocab_size)]
    return word_tokenizer(plain, special=["<unk>", "<|end|>"], eos="<|end|>", chat_template="")


def ragged(*, num_samples: int = 4) -> list[Prompt]:
    rng = np.random.default_rng(5)
    return [
        Prompt(ids=rng.integers(2, VOCABULARY, length).tolist(), num_samples=num_samples) for length in (1, 6, 3, 17, 2)
    ]


def flat(groups: list[list[Rollout]]) -> list[Rollout]:
    return [rollout for group in groups for rollout in group]


def ids_of(groups: list[list[Rollout]]) -> list[list[list[int]]]:
    return [[rollout.completion_ids.tolist() for rollout in group] for group in groups]


def as_samples(rollouts: list[Rollout]) -> list[Sample]:
    return [Sample(prompt_ids=r.prompt_ids, completion_ids=r.completion_ids, advantage=1.0) for r in rollouts]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_sampler_and_the_trainer_agree(family: str, temperature: float) -> None:
    """Prefill, decode with a cache and the trainer's packed rows are three ways to the same log-probabilities."""
    model = decoder(family)
    params = SamplingParams(max_tokens=24, temperature=temperature)
    rollouts = flat(Sampler(model, words(), max_rows=7).sample(ragged(), params, seed=1))
    assert len({len(rollout.completion_ids) for rollout in rollouts}) > 1
    trainer = Trainer(model, micro_batch_tokens=100)
    expected = trainer.logprobs(as_samples(rollouts), temperature=temperature)
    for rollout, logprobs in zip(rollouts, expected, strict=True):
        np.testing.assert_allclose(rollout.sampler_logprobs, logprobs, rtol=0, atol=1e-5)
    drawn = np.concatenate(expected)
    assert drawn.std() > 0.5, "logprobs that are all alike would compare nothing"


def test_truncation_leaves_the_logprobs_those_of_the_whole_distribution() -> None:
    model = decoder()
    params = SamplingParams(max_tokens=20, top_p=0.6, top_k=5, min_p=0.05)
    rollouts = flat(Sampler(model, words()).sample(ragged(), params, seed=1))
    for rollout, logprobs in zip(rollouts, Trainer(model).logprobs(as_samples(rollouts)), strict=True):
        np.testing.assert_allclose(rollout.sampler_logprobs, logprobs, rtol=0, atol=1e-5)


def assert_same_rollouts(found: list[list[Rollout]], expected: list[list[Rollout]]) -> None:
    assert ids_of(found) == ids_of(expected)
    for one, other in zip(flat(found), flat(expected), strict=True):
        np.testing.assert_allclose(one.sampler_logprobs, other.sampler_logprobs, rtol=0, atol=1e-5)
        assert (one.finish_reason, one.text) == (other.finish_reason, other.text)


@pytest.mark.parametrize("max_rows", [1, 3, 8, 19])
def test_continuous_batching_draws_what_one_big_batch_draws(max_rows: int) -> None:
    """Groups are torn apart where rows are scarce, and rows move as their neighbours leave."""
    model = decoder()
    params = SamplingParams(max_tokens=24)
    whole = Sampler(model, words()).sample(ragged(), params, seed=4)
    torn = Sampler(model, words(), max_rows=max_rows).sample(ragged(), params, seed=4)
    assert_same_rollouts(torn, whole)


@pytest.mark.parametrize("max_rows", [3, 256])
@pytest.mark.parametrize("limit", [1, 7, 20])
def test_prompts_that_are_prefilled_apart_draw_the_same(
    limit: int, max_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt longer than the limit goes alone."""
    model, params = decoder(), SamplingParams(max_tokens=24)
    whole = Sampler(model, words()).sample(ragged(), params, seed=4)
    monkeypatch.setattr("hone.engine.local.sampler.PREFILL_TOKENS", limit)
    prefilled: list[int] = []
    flat_of = model.flat

    def prefill(ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        prefilled.append(len(ids))
        return flat_of(ids, *rest)

    monkeypatch.setattr(model, "flat", prefill)
    assert_same_rollouts(Sampler(model, words(), max_rows=max_rows).sample(ragged(), params, seed=4), whole)
    assert len(prefilled) >= (5 if limit == 1 else 2)
    assert max(prefilled) <= max(limit, 17)


@pytest.mark.parametrize(("num_rows_that_fit", "num_rows"), [(0, 1), (1, 1), (3, 3), (1000, 20)])
def test_a_cache_of_little_memory_draws_the_same(
    num_rows_that_fit: int, num_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, params = decoder(), SamplingParams(max_tokens=24)
    whole = Sampler(model, words()).sample(ragged(), params, seed=4)
    row = 2 * 4 * 2 * 2 * 8 * (17 + 24)  # keys and values of 4 bytes; layers, heads, their size, positions
    monkeypatch.setattr("hone.engine.local.sampler.CACHE_BYTES", num_rows_that_fit * row + row - 1)
    sizes: list[int] = []
    cache = model.cache

    def sized(num_rows: int, num_positions: int) -> Cache:
        made = cache(num_rows, num_positions)
        sizes.append(made.store.numel() * made.store.element_size())
        return made

    monkeypatch.setattr(model, "cache", sized)
    assert_same_rollouts(Sampler(model, words()).sample(ragged(), params, seed=4), whole)
    assert sizes == [num_rows * row]


def requests() -> list[Request]:
    """Return groups of ragged prompts, each with settings of its own."""
    settings = [
        SamplingParams(max_tokens=24),
        SamplingParams(max_tokens=20, temperature=0.5, num_likeliest=3),
        SamplingParams(max_tokens=24, temperature=0),
        SamplingParams(max_tokens=24, temperature=1.3, top_p=0.7),
        SamplingParams(max_tokens=16, top_k=2, stop=("w5", "w7")),
    ]
    rng = np.random.default_rng(9)
    return [
        Request(prompt.ids, params, rng.random((prompt.num_samples, params.max_tokens), np.float32))
        for prompt, params in zip(ragged(num_samples=3), settings, strict=True)
    ]


def batch(model: Decoder) -> Batch:
    return Batch(model, words(), max_rows=16, num_positions=64)


def finish(shared: Batch) -> None:
    while shared.num_active:
        shared.step()


def alone(model: Decoder, asked: list[Request]) -> list[Running]:
    """Return the sequences of requests, each of which has a batch for itself."""
    found = []
    for request in asked:
        own = batch(model)
        found += own.add(request.ids, request.params, request.uniforms)
        finish(own)
    return found


def assert_same_sequences(found: list[Running], expected: list[Running]) -> None:
    assert [sequence.ids for sequence in found] == [sequence.ids for sequence in expected]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, rtol=0, atol=1e-5)
        assert (ours.finish_reason, len(ours.likeliest)) == (theirs.finish_reason, len(theirs.likeliest))


def test_each_sequence_is_drawn_by_its_own_settings_and_as_it_is_alone() -> None:
    model, asked = decoder(), requests()
    shared = batch(model)
    together = shared.extend(asked)
    finish(shared)
    assert_same_sequences(together, alone(model, asked))
    greedy = together[6:9]
    assert greedy[0].ids == greedy[1].ids == greedy[2].ids
    assert len({tuple(sequence.ids) for sequence in together}) > 10, "sequences that are copies would compare nothing"
    assert [bool(sequence.likeliest) for sequence in together] == [3 <= n < 6 for n in range(15)]


def test_sequences_that_come_while_others_run_draw_what_they_do_alone() -> None:
    model, asked = decoder(), requests()
    shared = batch(model)
    found: list[Running] = []
    for request in asked:
        found += shared.add(request.ids, request.params, request.uniforms)
        for _ in range(3):
            shared.step()
    assert shared.num_active
    finish(shared)
    assert_same_sequences(found, alone(model, asked))
    assert (shared.num_active, shared.num_free) == (0, 16)


def test_a_sequence_that_is_dropped_leaves_the_others_as_they_are() -> None:
    model, asked = decoder(), requests()
    shared = batch(model)
    found = shared.extend(asked[:3])
    shared.drop(found[4])  # just added, in the middle
    for _ in range(3):
        shared.step()
    first, last = shared.active[0], shared.active[-1]
    shared.drop(first)
    found += shared.extend(asked[3:])
    shared.drop(last)
    shared.drop(found[-1])  # just added, the last
    gone = [found[4], first, last, found[-1]]
    before = [list(sequence.ids) for sequence in gone]
    while shared.num_active:
        assert not set(gone) & set(shared.step())
    assert [sequence.ids for sequence in gone] == before
    assert [len(ids) for ids in before] == [0, 3, 3, 0]
    pairs = zip(found, alone(model, asked), strict=True)
    stayed = [(sequence, expected) for sequence, expected in pairs if sequence not in gone]
    assert_same_sequences([sequence for sequence, _ in stayed], [expected for _, expected in stayed])
    assert shared.num_free == 16


def test_a_batch_whose_last_sequence_is_dropped_goes_on() -> None:
    model, asked = decoder(), requests()
    shared = batch(model)
    for sequence in shared.extend(asked[:1]):
        shared.drop(sequence)
    assert shared.num_active == 0
    again = shared.extend(asked[:1])
    finish(shared)
    assert_same_sequences(again, alone(model, asked[:1]))


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0])
def test_the_likeliest_tokens_are_those_of_the_whole_distribution(temperature: float) -> None:
    model = decoder()
    params = SamplingParams(max_tokens=12, temperature=temperature, top_k=2, num_likeliest=4)
    for request in requests()[:2]:
        prompt = list(request.ids)
        for sequence in alone(model, [Request(prompt, params, request.uniforms)]):
            with torch.no_grad():
                scores = model.logits(model(torch.tensor([prompt + sequence.ids])))[0, len(prompt) - 1 : -1]
            values, tokens = (scores / (temperature or 1.0)).log_softmax(-1).topk(4)
            assert [[token for token, _ in found] for found in sequence.likeliest] == tokens.tolist()
            np.testing.assert_allclose(
                [[value for _, value in found] for found in sequence.likeliest], values, rtol=0, atol=1e-5
            )
            for drawn, logprob, found in zip(sequence.ids, sequence.logprobs, sequence.likeliest, strict=True):
                assert dict(found[:2])[drawn] == pytest.approx(logprob, abs=1e-6)  # top-k leaves the first two


def test_the_memory_of_the_cache_is_never_read_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory may hold NaN, and a masked NaN is still one: rows shorter than their neighbours must not meet it."""
    fresh = torch.Tensor.new_empty

    def poisoned(self: torch.Tensor, *args: Any, **settings: Any) -> torch.Tensor:
        return fresh(self, *args, **settings).fill_(float("nan"))

    sampler, params = Sampler(decoder(), words()), SamplingParams(max_tokens=12)
    expected = ids_of(sampler.sample(ragged(), params, seed=2))
    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)
    assert ids_of(sampler.sample(ragged(), params, seed=2)) == expected


def test_a_prompt_is_prefilled_once_and_a_finished_sequence_costs_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoder()
    prefilled: list[int] = []
    decoded: list[int] = []
    flat_of, decode = model.flat, model.decode

    def prefill(ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        prefilled.append(len(ids))
        return flat_of(ids, *rest)

    def counted(ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        decoded.append(len(ids))
        return decode(ids, *rest)

    monkeypatch.setattr(model, "flat", prefill)
    monkeypatch.setattr(model, "decode", counted)
    heard: list[int] = []
    groups = Sampler(model, words()).sample(ragged(), SamplingParams(max_tokens=24), seed=4, on_finish=heard.append)
    lengths = [len(rollout.completion_ids) for rollout in flat(groups)]
    assert min(lengths) < 12 < max(lengths)
    assert prefilled == [sum(len(prompt.ids) for prompt in ragged())]  # all prompts in one pass
    assert sum(decoded) == sum(lengths) - len(lengths)  # the first token of each comes from its prompt
    assert len(decoded) == max(lengths) - 1
    assert heard == sorted(set(heard))
    assert heard[-1] == len(lengths)


def test_how_completions_end() -> None:
    tokenizer = words()
    rollouts = flat(Sampler(decoder(), tokenizer).sample(ragged(num_samples=8), SamplingParams(max_tokens=24), seed=4))
    for rollout in rollouts:
        ids = rollout.completion_ids.tolist()
        assert tokenizer.eos_id not in ids[:-1]
        if rollout.finish_reason == "stop":
            assert ids[-1] == tokenizer.eos_id
            assert "<|end|>" not in rollout.text
        else:
            assert (len(ids), ids[-1] != tokenizer.eos_id) == (24, True)
        assert rollout.text == tokenizer.decode(ids)
    assert {rollout.finish_reason for rollout in rollouts} == {"stop", "length"}


@pytest.mark.parametrize("stop", [("w5",), ("w7 w7", "w3"), ("w1 w2 w3 w4", "7 w"), ("w1",)])
def test_a_completion_ends_where_a_stop_text_first_appears(stop: tuple[str, ...]) -> None:
    tokenizer, model = words(), decoder()
    free = flat(Sampler(model, tokenizer).sample(ragged(num_samples=8), SamplingParams(max_tokens=24), seed=4))
    stopped = flat(
        Sampler(model, tokenizer).sample(ragged(num_samples=8), SamplingParams(max_tokens=24, stop=stop), seed=4)
    )
    num_stopped = 0
    for whole, short in zip(free, stopped, strict=True):
        ids = whole.completion_ids.tolist()
        ends = (n for n in range(1, len(ids) + 1) if any(text in tokenizer.decode(ids[:n]) for text in stop))
        end = next(ends, None)
        assert short.completion_ids.tolist() == ids[:end]
        assert short.finish_reason == (whole.finish_reason if end is None else "stop")
        num_stopped += end is not None
    if stop != ("w1 w2 w3 w4", "7 w"):
        assert num_stopped


def test_greedy_takes_the_likeliest_token_of_the_whole_sequence() -> None:
    model = decoder("qwen3")
    groups = Sampler(model, words()).sample(ragged(num_samples=2), SamplingParams(max_tokens=16, temperature=0), seed=0)
    for prompt, group in zip(ragged(), groups, strict=True):
        ids = list(prompt.ids)
        logprobs = []
        with torch.no_grad():
            while len(logprobs) < 16 and ids[-1] != words().eos_id:
                scores = model.logits(model(torch.tensor([ids])))[0, -1].log_softmax(-1)
                ids.append(int(scores.argmax()))
                logprobs.append(float(scores.max()))
        for rollout in group:
            assert rollout.completion_ids.tolist() == ids[len(prompt.ids) :]
            np.testing.assert_allclose(rollout.sampler_logprobs, logprobs, rtol=0, atol=1e-5)


def test_the_seed_decides() -> None:
    sampler, params = Sampler(decoder(), words()), SamplingParams(max_tokens=16)
    first, again, other = (ids_of(sampler.sample(ragged(), params, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert all(len({tuple(ids) for ids in group}) > 1 for group in first), "a group's rollouts are not copies"


def test_a_tiny_model_draws_its_own_distribution() -> None:
    """The first token of many rollouts comes up as often as the model says."""
    model = decoder()
    ids = [4, 9, 2]
    with torch.no_grad():
        probs = (model.logits(model(torch.tensor([ids])))[0, -1] / 0.7).softmax(-1)
    params = SamplingParams(max_tokens=1, temperature=0.7)
    drawn = flat(Sampler(model, words(), max_rows=4096).sample([Prompt(ids=ids, num_samples=8192)], params, seed=6))
    assert_frequencies(torch.tensor([rollout.completion_ids[0] for rollout in drawn]), probs)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.05, 0.3, 0.1, 0.4, 0.15]),
        ({"top_k": 3}, [0, 0.3, 0, 0.4, 0.15]),
        ({"top_k": 1}, [0, 0, 0, 0.4, 0]),
        ({"top_k": 9}, [0.05, 0.3, 0.1, 0.4, 0.15]),
        ({"top_p": 0.39}, [0, 0, 0, 0.4, 0]),
        ({"top_p": 0.6}, [0, 0.3, 0, 0.4, 0]),
        ({"top_p": 0.75}, [0, 0.3, 0, 0.4, 0.15]),
        ({"min_p": 0.3}, [0, 0.3, 0, 0.4, 0.15]),
        ({"min_p": 0.5}, [0, 0.3, 0, 0.4, 0]),
        # Of the three that stay, 0.7 of 0.85 is reached by two.
        ({"top_k": 3, "top_p": 0.8}, [0, 0.3, 0, 0.4, 0]),
        ({"top_k": 4, "min_p": 0.2}, [0, 0.3, 0.1, 0.4, 0.15]),
    ],
)
def test_truncation_by_hand_and_how_often_each_token_is_drawn(settings: dict[str, Any], expected: list[float]) -> None:
    probs = torch.tensor([[0.05, 0.3, 0.1, 0.4, 0.15], [0.4, 0.1, 0.3, 0.15, 0.05]])
    order = torch.tensor([3, 2, 1, 4, 0])  # the second row is the first in this order
    assert torch.equal(probs[0][order], probs[1])
    cut = truncate(probs.clone(), SamplingParams(max_tokens=1, **settings))
    whole = torch.tensor(expected)
    torch.testing.assert_close(cut, torch.stack((whole, whole[order])))

    uniforms = torch.rand(20000, generator=torch.Generator().manual_seed(0))
    drawn = inverse_cdf(cut[:1].expand(20000, -1), uniforms)
    assert_frequencies(drawn, whole / whole.sum())


def assert_frequencies(drawn: torch.Tensor, probs: torch.Tensor) -> None:
    """Tokens of probability 0 never come up, and the others as often as they should, within five deviations."""
    shares = torch.bincount(drawn, minlength=len(probs)) / len(drawn)
    assert not shares[probs == 0].any()
    assert bool(((shares - probs).abs() <= 5 * (probs * (1 - probs) / len(drawn)).sqrt() + 1e-12).all())


def test_equal_probabilities_are_cut_to_k_all_the_same() -> None:
    cut = truncate(torch.full((3, 8), 0.125), SamplingParams(max_tokens=1, top_k=3))
    assert (cut > 0).sum(-1).tolist() == [3, 3, 3]


def test_the_ends_of_the_unit_interval_fall_on_possible_tokens() -> None:
    largest = float(np.nextafter(np.float32(1), np.float32(0)))
    for probs in ([0.0, 0.3, 0.0, 0.7, 0.0], [0.0, 1e-30, 0.0], [0.0] * 50 + [0.1] * 3 + [0.0] * 50):
        rows = torch.tensor([probs, probs])
        low, high = inverse_cdf(rows, torch.tensor([0.0, largest])).tolist()
        possible = [token for token, prob in enumerate(probs) if prob > 0]
        assert (low, high) == (possible[0], possible[-1])


WIDE_SIZES = [4097, 4224, 5000]  # one token in the last block; whole blocks; eight tokens in the last one


def wide_probs(size: int) -> dict[str, torch.Tensor]:
    """Return unnormalised probabilities over a vocabulary that is drawn from by blocks."""
    generator = torch.Generator().manual_seed(size)
    sparse, ends, last = (torch.zeros(size) for _ in range(3))
    sparse[[1, 127, 128, 130, 2000, 2047, 4000, size - 1]] = torch.tensor([0.1, 0.2, 0.05, 0.3, 0.1, 0.02, 0.03, 0.1])
    ends[[0, size - 1]] = torch.tensor([0.25, 0.5])
    last[size - 1] = 1e-30
    dense = (3 * torch.randn(size, generator=generator)).softmax(-1)
    return {"dense": dense, "even": torch.full((size,), 1 / size), "sparse": sparse, "ends": ends, "last": last}


@pytest.mark.parametrize("size", WIDE_SIZES)
@pytest.mark.parametrize("name", ["dense", "even", "sparse", "ends", "last"])
def test_tokens_of_a_wide_vocabulary_are_drawn_as_often_as_they_should(name: str, size: int) -> None:
    """The uniform numbers are evenly spaced, so each token comes up by its share of them, but for rounding."""
    assert size > WIDE
    probs, count = wide_probs(size)[name], 6000
    uniforms = (torch.arange(count) + 0.5) / count
    drawn = torch.cat([inverse_cdf(probs.expand(len(part), -1), part) for part in uniforms.split(500)])
    times = torch.bincount(drawn, minlength=size)
    assert not times[probs == 0].any()
    expected = probs.double() / probs.double().sum() * count
    assert (times - expected).abs().max() < 1.2
    # The tokens are in order: each number falls on the very token, but for those on the edge of two.
    exact = torch.searchsorted(expected.cumsum(-1), uniforms.double() * count, right=True)
    assert (drawn != exact).sum() <= count * 0.005


@pytest.mark.parametrize("size", WIDE_SIZES)
def test_the_ends_of_the_unit_interval_fall_on_possible_tokens_of_a_wide_vocabulary(size: int) -> None:
    largest = float(np.nextafter(np.float32(1), np.float32(0)))
    for probs in wide_probs(size).values():
        low, high = inverse_cdf(probs.expand(2, -1), torch.tensor([0.0, largest])).tolist()
        assert low == probs.nonzero()[0]
        assert probs[high] > 0
        assert probs[high + 1 :].sum() <= 1e-5 * probs.sum()  # what float32 does not tell from one


@pytest.mark.parametrize("size", WIDE_SIZES)
def test_the_last_block_of_a_wide_vocabulary_ends_with_its_last_token(size: int) -> None:
    """However the sums of a block and of its tokens are rounded."""
    probs = torch.zeros(400, size)
    probs[:, size - 7 :] = torch.rand(400, 7, generator=torch.Generator().manual_seed(0))
    probs[:, -1] = 1e-9
    drawn = inverse_cdf(probs, torch.full((400,), float(np.nextafter(np.float32(1), np.float32(0)))))
    assert size - 7 <= drawn.min()
    assert drawn.max() < size


def test_rows_of_a_wide_vocabulary_are_drawn_each_by_its_own() -> None:
    probs = torch.stack(list(wide_probs(5000).values()))
    uniforms = torch.tensor([0.9, 0.1, 0.7, 0.5, 0.3])
    one_by_one = [int(inverse_cdf(row[None], number[None])) for row, number in zip(probs, uniforms, strict=True)]
    assert inverse_cdf(probs, uniforms).tolist() == one_by_one
    assert len(set(one_by_one)) > 3


def test_sampler_and_trainer_agree_on_a_wide_vocabulary() -> None:
    model, params = decoder(vocab_size=4500), SamplingParams(max_tokens=6, temperature=0.3, top_p=0.8)
    rollouts = Sampler(model, words(4500)).sample(ragged(), params, seed=1)
    assert_same_rollouts(Sampler(model, words(4500), max_rows=3).sample(ragged(), params, seed=1), rollouts)
    expected = Trainer(model).logprobs(as_samples(flat(rollouts)), temperature=0.3)
    for rollout, logprobs in zip(flat(rollouts), expected, strict=True):
        np.testing.assert_allclose(rollout.sampler_logprobs, logprobs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("min_p", [0.0, 1e-3])
@pytest.mark.parametrize("scales", [[4.0, 4.0], [0.3, 0.3], [4.0, 0.3]], ids=["peaked", "even", "both"])
def test_the_shortcut_of_top_p_equals_sorting_the_whole_row(scales: list[float], min_p: float) -> None:
    """Where the likeliest tokens suffice, where they are too few, and where a batch has rows of both kinds."""
    generator = torch.Generator().manual_seed(2)
    probs = (torch.tensor(scales)[:, None] * torch.randn(2, 2000, generator=generator)).softmax(-1)
    cut = truncate(probs.clone(), SamplingParams(max_tokens=1, top_p=0.9, min_p=min_p))
    for row, found, scale in zip(probs.double(), cut.double(), scales, strict=True):
        allowed = row.where(row >= min_p * row.max(), 0)
        order = allowed.argsort(descending=True)
        before = allowed[order].cumsum(-1) - allowed[order]
        kept = order[before < 0.9 * allowed.sum()]
        expected = torch.zeros_like(row)
        expected[kept] = row[kept]
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
        assert (len(kept) > LIKELIEST) == (scale < 1)


def test_what_does_not_fit_the_model_is_refused_by_name() -> None:
    sampler = Sampler(decoder(), words())
    with pytest.raises(HoneError, match="60 new tokens come to 65, but the model has 64 positions; lower max_tokens"):
        sampler.sample([Prompt(ids=[2]), Prompt(ids=[2] * 5)], SamplingParams(max_tokens=60), seed=0)
    assert sampler.sample([Prompt(ids=[2] * 5)], SamplingParams(max_tokens=59), seed=0)
    with pytest.raises(HoneError, match="a prompt is empty"):
        sampler.sample([Prompt(ids=[2]), Prompt(ids=[])], SamplingParams(max_tokens=4), seed=0)


@pytest.mark.parametrize("vocab_size", [VOCABULARY, 4500])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_whose_weights_diverged_ends_the_run(value: float, vocab_size: int) -> None:
    model = decoder(vocab_size=vocab_size)
    with torch.no_grad():
        model.norm.weight[0] = value
    for settings in ({"temperature": 0.0}, {}, {"top_p": 0.5}, {"top_k": 3}, {"num_likeliest": 2}):
        params = SamplingParams(max_tokens=4, **settings)  # type: ignore[arg-type]
        with pytest.raises(RunError, match="not finite"):
            Sampler(model, words(vocab_size)).sample(ragged(), params, seed=0)
        assert all(module.packed is None for module in model.modules() if isinstance(module, Linear))


def test_a_stream_gives_each_sequence_what_its_seed_alone_decides() -> None:
    model, params = decoder(), SamplingParams(max_tokens=24)
    sampler, prompts = Sampler(model, words(), max_rows=3), ragged()
    seeds = list(range(100, 100 + sum(prompt.num_samples for prompt in prompts)))
    streamed = dict(sampler.stream(prompts, params, seeds=seeds))
    assert sorted(streamed) == list(range(len(seeds)))
    owners = [prompt for prompt in prompts for _ in range(prompt.num_samples)]
    for number in (0, 7, len(seeds) - 1):
        alone = Prompt(ids=owners[number].ids)
        ((_, again),) = Sampler(model, words()).stream([alone], params, seeds=[seeds[number]])
        assert_same_rollouts([[again]], [[streamed[number]]])
