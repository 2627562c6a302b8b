"""The sampler against the trainer, and against itself: what is drawn does not depend on who shares the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hone.engine.local.sampler import Sampler, _inverse_cdf, truncate
from hone.engine.local.trainer import Trainer
from hone.models.decoder import Decoder, DecoderConfig
from hone.models.tokenizer import Tokenizer, word_tokenizer
from hone.types import HoneError, Prompt, Rollout, RunError, Sample, SamplingParams

VOCABULARY = 23
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "tie_word_embeddings": False},
    "llama-biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 12, "num_key_value_heads": 1},
}


def decoder(family: str = "qwen2", seed: int = 3) -> Decoder:
    """Make a tiny model whose weights are large, so that its distributions are far from uniform."""
    shape = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
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


def words() -> Tokenizer:
    plain = [f"w{number}" for number in range(2, VOCABULARY)]
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


@pytest.mark.parametrize("max_rows", [1, 3, 8, 19])
def test_continuous_batching_draws_what_one_big_batch_draws(max_rows: int) -> None:
    """Groups are torn apart where rows are scarce, and rows move as their neighbours leave."""
    model = decoder()
    params = SamplingParams(max_tokens=24)
    whole = Sampler(model, words()).sample(ragged(), params, seed=4)
    torn = Sampler(model, words(), max_rows=max_rows).sample(ragged(), params, seed=4)
    assert ids_of(torn) == ids_of(whole)
    for one, other in zip(flat(torn), flat(whole), strict=True):
        np.testing.assert_allclose(one.sampler_logprobs, other.sampler_logprobs, rtol=0, atol=1e-5)
        assert (one.finish_reason, one.text) == (other.finish_reason, other.text)


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
    model.register_forward_pre_hook(lambda _, args: prefilled.append(args[0].numel()))
    decode = model.decode

    def counted(ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        decoded.append(len(ids))
        return decode(ids, *rest)

    monkeypatch.setattr(model, "decode", counted)
    heard: list[int] = []
    groups = Sampler(model, words()).sample(ragged(), SamplingParams(max_tokens=24), seed=4, on_finish=heard.append)
    lengths = [len(rollout.completion_ids) for rollout in flat(groups)]
    assert min(lengths) < 12 < max(lengths)
    assert sum(prefilled) == sum(len(prompt.ids) for prompt in ragged())
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
    drawn = _inverse_cdf(cut[:1].expand(20000, -1), uniforms)
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
        low, high = _inverse_cdf(rows, torch.tensor([0.0, largest])).tolist()
        possible = [token for token, prob in enumerate(probs) if prob > 0]
        assert (low, high) == (possible[0], possible[-1])


def test_what_does_not_fit_the_model_is_refused_by_name() -> None:
    sampler = Sampler(decoder(), words())
    with pytest.raises(HoneError, match="60 new tokens come to 65, but the model has 64 positions; lower max_tokens"):
        sampler.sample([Prompt(ids=[2]), Prompt(ids=[2] * 5)], SamplingParams(max_tokens=60), seed=0)
    assert sampler.sample([Prompt(ids=[2] * 5)], SamplingParams(max_tokens=59), seed=0)
    with pytest.raises(HoneError, match="a prompt is empty"):
        sampler.sample([Prompt(ids=[2]), Prompt(ids=[])], SamplingParams(max_tokens=4), seed=0)


def test_a_model_whose_weights_diverged_ends_the_run() -> None:
    model = decoder()
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    for temperature in (0.0, 1.0):
        with pytest.raises(RunError, match="not finite"):
            Sampler(model, words()).sample(ragged(), SamplingParams(max_tokens=4, temperature=temperature), seed=0)
