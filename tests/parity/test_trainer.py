"""The trainer against itself, however a step is cut into micro-batches, and against torch's AdamW on transformers."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hone.algo.losses import Direction, loss_backward
from hone.algo.packing import Aggregation, pack, token_weight
from hone.engine.base import TokenBatch, TokenLoss
from hone.engine.local.trainer import Trainer
from hone.models.attention import attend_by_segment
from hone.models.decoder import Decoder, DecoderConfig
from hone.models.loading import load_model, save_model
from hone.stages.rl import GrpoLoss
from hone.types import PackedBatch, RunError, Sample

VOCABULARY = 23
MAX_TOKENS = 20


@pytest.fixture
def model(tiny_decoder: Callable[[int], Decoder]) -> Decoder:
    return tiny_decoder(VOCABULARY)


def ragged(count: int = 11) -> list[Sample]:
    rng = np.random.default_rng(8)

    def sample(number: int) -> Sample:
        length = int(rng.integers(1, MAX_TOKENS))
        return Sample(
            prompt_ids=rng.integers(VOCABULARY, size=int(rng.integers(1, 12))),
            completion_ids=rng.integers(VOCABULARY, size=length),
            advantage=float(rng.normal()),
            old_logprobs=rng.normal(-3, 0.5, length).astype(np.float32),
            ref_logprobs=rng.normal(-3, 0.5, length).astype(np.float32),
        )

    return [sample(number) for number in range(count)]


def packed(samples: list[Sample], how: Aggregation = "output", *, micro_batch_tokens: int = 10_000) -> PackedBatch:
    num_tokens = sum(len(sample.completion_ids) for sample in samples)
    weights = [
        token_weight(sample, how, num_outputs=len(samples), num_tokens=num_tokens, max_tokens=MAX_TOKENS)
        for sample in samples
    ]
    return pack(samples, weights, micro_batch_tokens=micro_batch_tokens)


def grads(model: Decoder) -> dict[str, Tensor]:
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def weights_of(model: Decoder) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_all_close(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], atol: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=atol, msg=lambda text, n=name: f"{n}: {text}")


def supervised(logprobs: Tensor, batch: TokenBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
    return -logprobs * batch.advantages, {}


GRPO = GrpoLoss(clip_low=0.2, clip_high=0.3, kl_coef=0.05)


@pytest.mark.parametrize("how", ["output", "token", "constant"])
@pytest.mark.parametrize("token_loss", [supervised, GRPO], ids=["supervised", "grpo"])
def test_many_micro_batches_are_one(model: Decoder, token_loss: TokenLoss, how: Aggregation) -> None:
    trainer = Trainer(model)
    whole_batch = packed(ragged(), how)
    assert len(whole_batch.micro_batches) == 1
    whole_figures = trainer.forward_backward(whole_batch, token_loss, temperature=0.8)
    whole = grads(model)
    assert max(gradient.abs().max() for gradient in whole.values()) > 1e-2
    for micro_batch_tokens, at_least in ((1, 11), (60, 3), (90, 2)):
        cut = packed(ragged(), how, micro_batch_tokens=micro_batch_tokens)
        assert len(cut.micro_batches) >= at_least
        assert (cut.num_tokens, cut.num_loss_tokens) == (whole_batch.num_tokens, whole_batch.num_loss_tokens)
        figures = trainer.forward_backward(cut, token_loss, temperature=0.8)
        assert_all_close(grads(model), whole, 1e-6)
        assert figures == pytest.approx(whole_figures, abs=1e-6, rel=1e-5)


def of_few_prompts() -> list[Sample]:
    """Groups whose prompts are long or a single token, shuffled, completions of one token among them."""
    rng = np.random.default_rng(3)
    prompts = [rng.integers(VOCABULARY, size=length) for length in (30, 1, 12, 7)]
    samples = [dataclasses.replace(sample, prompt_ids=prompts[number % 4]) for number, sample in enumerate(ragged(14))]
    one = dataclasses.replace(
        samples[4], completion_ids=np.array([5]), old_logprobs=np.array([-2], np.float32),
        ref_logprobs=np.array([-3], np.float32),
    )  # fmt: skip
    return [*samples, one, one]


def by_padded_rows(model: Decoder, samples: list[Sample], temperature: float) -> float:
    """Add the gradients of the GRPO loss of whole padded rows, by autograd over all logits; return the loss."""
    whole = [np.concatenate([sample.prompt_ids, sample.completion_ids]) for sample in samples]
    ids = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(row) for row in whole], batch_first=True)
    table = (model.logits(model(ids)) / temperature).log_softmax(-1)
    loss = torch.zeros(())
    for row, sample in enumerate(samples):
        first, count = len(sample.prompt_ids), len(sample.completion_ids)
        logprobs = table[row, first - 1 : first - 1 + count].gather(-1, ids[row, first : first + count, None])[:, 0]
        assert sample.old_logprobs is not None
        assert sample.ref_logprobs is not None
        tokens = TokenBatch(
            advantages=torch.full((count,), sample.advantage),
            old_logprobs=torch.from_numpy(sample.old_logprobs),
            ref_logprobs=torch.from_numpy(sample.ref_logprobs),
        )
        loss = loss + GRPO(logprobs, tokens)[0].sum() / (len(samples) * count)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


@pytest.mark.parametrize("micro_batch_tokens", [10_000, 120, 45, 1])
def test_shared_prompts_give_the_gradients_of_whole_rows(
    model: Decoder, micro_batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = of_few_prompts()
    with monkeypatch.context() as patched:
        patched.setattr("hone.models.decoder.attend", attend_by_segment)  # torch's own attention and its autograd
        loss = by_padded_rows(model, samples, 0.8)
    expected = grads(model)
    assert max(gradient.abs().max() for gradient in expected.values()) > 1e-2

    batch = packed(samples, micro_batch_tokens=micro_batch_tokens)
    continued = [segment for micro in batch.micro_batches for segment in micro.segments if segment.parent is not None]
    assert bool(continued) == (micro_batch_tokens > 1)
    assert (len(batch.micro_batches) == 1) == (micro_batch_tokens == 10_000)
    figures = Trainer(model).forward_backward(batch, GRPO, temperature=0.8)
    assert figures["loss"] == pytest.approx(loss, abs=1e-5)
    assert_all_close(grads(model), expected, 2e-6)


@pytest.mark.parametrize("micro_batch_tokens", [10_000, 45])
def test_shared_prompts_give_the_same_logprobs_in_the_order_of_the_samples(
    model: Decoder, micro_batch_tokens: int
) -> None:
    samples, trainer = of_few_prompts(), Trainer(model, micro_batch_tokens=micro_batch_tokens)
    alone = [trainer.logprobs([sample])[0] for sample in samples]
    for sample, shared, apart in zip(samples, trainer.logprobs(samples), alone, strict=True):
        assert len(shared) == len(sample.completion_ids)
        np.testing.assert_allclose(shared, apart, rtol=0, atol=1e-5)


def test_a_loss_is_the_same_however_its_logits_are_cut(model: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures and the gradients, those of the head among them, a few tokens' logits at a time."""
    trainer, batch = Trainer(model), packed(ragged())
    figures, expected = trainer.forward_backward(batch, GRPO, temperature=0.8), grads(model)
    for chunk_elements in (1, 7 * VOCABULARY):
        monkeypatch.setattr(
            "hone.engine.local.trainer.loss_backward", functools.partial(loss_backward, chunk_elements=chunk_elements)
        )
        assert trainer.forward_backward(batch, GRPO, temperature=0.8) == pytest.approx(figures, abs=1e-6, rel=1e-5)
        assert_all_close(grads(model), expected, 1e-6)


def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same(teacher: Decoder) -> None:
    model = teacher.requires_grad_(True)
    model.config = dataclasses.replace(model.config, tie_word_embeddings=False)
    model.lm_head.weight = torch.nn.Parameter(model.embed_tokens.weight.detach().flip(0).clone())
    Trainer(model).forward_backward(packed(ragged()), GRPO)
    expected = grads(model)
    assert expected.pop("lm_head.weight").abs().max() > 1e-3
    model.lm_head.weight.requires_grad_(False)
    trainer = Trainer(model)
    trainer.forward_backward(packed(ragged()), GRPO)
    assert model.lm_head.weight.grad is None
    assert_all_close(grads(model), expected, 0)
    before = model.lm_head.weight.clone()
    trainer.forward_backward(packed(ragged()), GRPO)
    trainer.optim_step(1e-3)
    assert torch.equal(model.lm_head.weight, before)


@pytest.fixture
def teacher() -> Decoder:
    """Make a wider decoder of the other family, whose vocabulary is padded."""
    config = DecoderConfig(
        model_type="llama", vocab_size=VOCABULARY + 5, hidden_size=40, intermediate_size=56, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=4, head_dim=10, max_position_embeddings=64,
    )  # fmt: skip
    made = Decoder(config).requires_grad_(False)
    generator = torch.Generator().manual_seed(5)
    for parameter in made.parameters():
        parameter.normal_(std=0.3, generator=generator)
    return made


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_distillation_is_torchs_divergence_however_it_is_cut(
    model: Decoder, teacher: Decoder, direction: Direction
) -> None:
    samples = ragged()
    num_tokens = sum(len(sample.completion_ids) for sample in samples)
    loss = torch.zeros(())
    for sample in samples:
        ids = torch.from_numpy(np.concatenate([sample.prompt_ids, sample.completion_ids]))[None]
        ours, theirs = (
            of.logits(of(ids))[0, len(sample.prompt_ids) - 1 : -1, :VOCABULARY].log_softmax(-1)
            for of in (model, teacher)
        )
        given = (ours, theirs) if direction == "forward" else (theirs, ours)  # kl_div is KL(second || first)
        loss = loss + torch.nn.functional.kl_div(*given, reduction="sum", log_target=True) / num_tokens
    loss.backward()
    expected = grads(model)
    trainer = Trainer(model)
    for micro_batch_tokens in (10_000, 60, 1):
        batch = packed(samples, "token", micro_batch_tokens=micro_batch_tokens)
        figures = trainer.distill_backward(batch, teacher, direction)
        assert figures["loss"] == pytest.approx(loss.item(), abs=1e-5)
        assert 0 < figures["policy/entropy"] < np.log(VOCABULARY)
        assert_all_close(grads(model), expected, 1e-5)
    assert not grads(teacher)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_model_has_nothing_to_learn_from_itself(model: Decoder, direction: Direction) -> None:
    batch = packed(ragged(), micro_batch_tokens=60)
    assert Trainer(model).distill_backward(batch, copy.deepcopy(model), direction)["loss"] == 0
    assert all(gradient.abs().max() == 0 for gradient in grads(model).values())


def test_the_order_of_samples_does_not_matter(model: Decoder) -> None:
    trainer, samples = Trainer(model), ragged()
    figures = trainer.forward_backward(packed(samples, micro_batch_tokens=60), GRPO)
    expected = grads(model)
    for seed in range(3):
        shuffled = [samples[n] for n in np.random.default_rng(seed).permutation(len(samples))]
        again = trainer.forward_backward(packed(shuffled, micro_batch_tokens=60), GRPO)
        assert_all_close(grads(model), expected, 1e-6)
        assert again == pytest.approx(figures, abs=1e-6, rel=1e-5)


def test_logprobs_come_back_in_the_order_of_the_samples(model: Decoder) -> None:
    samples = ragged()
    found = Trainer(model, micro_batch_tokens=60).logprobs(samples, temperature=0.8)
    for sample, logprobs in zip(samples, found, strict=True):
        ids = torch.from_numpy(np.concatenate([sample.prompt_ids, sample.completion_ids]))[None]
        with torch.no_grad():
            scores = (model.logits(model(ids))[0] / 0.8).log_softmax(-1)
        first = len(sample.prompt_ids)
        expected = scores[first - 1 : -1].gather(-1, ids[0, first:, None])[:, 0]
        np.testing.assert_allclose(logprobs, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_stops_before_the_gradients(model: Decoder, value: float) -> None:
    trainer, before = Trainer(model), weights_of(model)

    def broken(logprobs: Tensor, batch: TokenBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
        return torch.cat((logprobs[:-1], logprobs[-1:] * value)), {}

    with pytest.raises(RunError, match="loss is"):
        trainer.forward_backward(packed(ragged()), broken)
    assert not grads(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights_of(model).items())


def test_a_gradient_that_is_not_finite_stops_before_the_weights(model: Decoder) -> None:
    """The square root of zero is finite, and its slope is not."""
    trainer = Trainer(model)
    trainer.forward_backward(packed(ragged()), GRPO)
    trainer.optim_step(1e-3)
    before, state = weights_of(model), {name: tensor.clone() for name, tensor in trainer.state().items()}

    def steep(logprobs: Tensor, batch: TokenBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
        return (logprobs - logprobs.detach()).sqrt(), {}

    assert trainer.forward_backward(packed(ragged()), steep)["loss"] == 0
    with pytest.raises(RunError, match="norm of the gradients"):
        trainer.optim_step(1e-3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights_of(model).items())
    assert all(torch.equal(tensor, state[name]) for name, tensor in trainer.state().items())


def test_only_matrices_decay(model: Decoder) -> None:
    """With gradients of zero a step of AdamW is its decay alone."""
    trainer, before = Trainer(model, weight_decay=0.5), weights_of(model)
    trainer.forward_backward(packed(ragged()), lambda logprobs, batch: (logprobs * 0, {}))
    trainer.optim_step(0.1)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            torch.testing.assert_close(parameter.detach(), before[name] * (1 - 0.1 * 0.5))
        else:
            assert torch.equal(parameter.detach(), before[name]), name


def test_gradients_are_clipped_by_their_norm_over_all_weights(model: Decoder) -> None:
    """Adam hides the scale of a first gradient, so the clip is read off the first moment."""
    trainer = Trainer(model, max_grad_norm=0.01, betas=(0.0, 0.999))
    trainer.forward_backward(packed(ragged()), GRPO)
    norm = torch.stack([parameter.grad.norm() for parameter in model.parameters() if parameter.grad is not None]).norm()
    assert trainer.optim_step(1e-3) == pytest.approx(norm.item(), rel=1e-5)
    moments = [tensor for name, tensor in trainer.state().items() if name.endswith("/exp_avg")]
    assert torch.stack([moment.norm() for moment in moments]).norm().item() == pytest.approx(0.01, rel=1e-3)
    assert not grads(model)


def test_a_trainer_that_takes_up_its_state_steps_to_the_same_bits(model: Decoder) -> None:
    def step(trainer: Trainer) -> None:
        trainer.forward_backward(packed(ragged(), micro_batch_tokens=60), GRPO)
        trainer.optim_step(1e-3)

    first = Trainer(model)
    step(first)
    twin = copy.deepcopy(model)
    second = Trainer(twin)
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    for _ in range(2):
        step(first)
        step(second)
    assert all(torch.equal(tensor, weights_of(twin)[name]) for name, tensor in weights_of(model).items())


def test_steps_are_those_of_torch_on_a_model_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False, attention_bias=True,
    )  # fmt: skip
    torch.manual_seed(1)  # transformers draws from torch's own generator
    theirs = transformers.LlamaForCausalLM(config).train()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    trainer = Trainer(ours, weight_decay=0.1, max_grad_norm=0.5, betas=(0.9, 0.95))
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=False, foreach=False)

    samples = [dataclasses.replace(sample, advantage=1.0) for sample in ragged()]
    num_tokens = sum(len(sample.completion_ids) for sample in samples)
    for learning_rate in (1e-3, 2e-3, 1e-3, 5e-4):
        batch = packed(samples, "token", micro_batch_tokens=60)
        ours_loss = trainer.forward_backward(batch, supervised)["loss"]
        loss = sum(negative_logprobs(theirs, sample).sum() for sample in samples) / num_tokens
        assert ours_loss == pytest.approx(loss.item(), abs=1e-5)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5).item()
        assert norm > 0.5, "the clip must bite"
        assert trainer.optim_step(learning_rate) == pytest.approx(norm, rel=1e-4)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
        optimizer.zero_grad()
    assert_all_close(in_their_layout(ours, tmp_path), dict(theirs.state_dict()), 1e-5)


def negative_logprobs(model: Callable[..., object], sample: Sample) -> Tensor:
    ids = torch.from_numpy(np.concatenate([sample.prompt_ids, sample.completion_ids]))[None]
    logits = model(input_ids=ids).logits[0, len(sample.prompt_ids) - 1 : -1]  # type: ignore[attr-defined]
    return torch.nn.functional.cross_entropy(logits, torch.from_numpy(sample.completion_ids), reduction="none")


def in_their_layout(model: Decoder, folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    save_model(model, folder)
    return load_file(folder / "model.safetensors")
