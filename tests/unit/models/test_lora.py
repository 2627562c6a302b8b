"""Adapters against the base they leave as it is, against autograd by hand, and against peft on the same tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hone.algo.packing import pack
from hone.engine.local.engine import LocalEngine
from hone.engine.local.trainer import Trainer
from hone.models.decoder import Decoder, DecoderConfig, Linear
from hone.models.loading import load_model
from hone.models.lora import PROJECTIONS, LoraLinear, adapters, add_lora
from hone.models.tokenizer import Tokenizer, word_tokenizer
from hone.stages.rl import GrpoLoss
from hone.types import PackedBatch, Prompt, Sample, SamplingParams

RANK, ALPHA = 3, 5.0
WORDS = [f"w{number}" for number in range(20)]


def tokenizer() -> Tokenizer:
    return word_tokenizer(WORDS, special=["<unk>", "<|end|>"], eos="<|end|>", chat_template="")


def base(model_type: str = "qwen2") -> Decoder:
    config = DecoderConfig(
        model_type=model_type, vocab_size=22, hidden_size=16, intermediate_size=24, num_hidden_layers=2,  # type: ignore[arg-type]
        num_attention_heads=4, num_key_value_heads=2, head_dim=4, max_position_embeddings=64,
        tie_word_embeddings=model_type == "qwen2",
    )  # fmt: skip
    return filled(Decoder(config), 1)


def filled(model: Decoder, seed: int) -> Decoder:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return model


def adapted(model_type: str = "qwen2") -> Decoder:
    """Return a model whose adapters are not zero."""
    model = base(model_type)
    add_lora(model, rank=RANK, alpha=ALPHA, seed=2)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_b"):
                parameter.normal_(std=0.3, generator=generator)
    return model


def logits(model: Decoder) -> Tensor:
    ids = torch.randint(22, (3, 9), generator=torch.Generator().manual_seed(6))
    return model.logits(model(ids)).detach()


def batch() -> PackedBatch:
    rng = np.random.default_rng(5)
    samples = [
        Sample(
            prompt_ids=rng.integers(22, size=3), completion_ids=rng.integers(22, size=length),
            advantage=float(rng.normal()), old_logprobs=rng.normal(-3, 0.3, length).astype(np.float32),
        )
        for length in (2, 5, 5, 7)
    ]  # fmt: skip
    return pack(samples, [0.1] * 4, micro_batch_tokens=20)


def test_an_adapter_computes_equation_3() -> None:
    linear = Linear(2, 3)
    adapter = LoraLinear(linear, 1, 4.0, torch.Generator())
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        linear.bias.copy_(torch.tensor([0.0, 0.0, 10.0]))
        adapter.lora_a.copy_(torch.tensor([[2.0, -1.0]]))
        adapter.lora_b.copy_(torch.tensor([[1.0], [0.0], [-1.0]]))
    # A x = 2*3 - 5 = 1, scale = 4: the update is 4, 0, -4.
    assert adapter(torch.tensor([3.0, 5.0])).tolist() == [7.0, 5.0, 14.0]
    assert adapter.merged().tolist() == [[9.0, -4.0], [0.0, 1.0], [-7.0, 5.0]]


@pytest.mark.parametrize("model_type", ["qwen2", "llama", "qwen3"])
def test_fresh_adapters_change_nothing_and_are_all_that_is_trained(model_type: str) -> None:
    plain, model = base(model_type), base(model_type)
    add_lora(model, rank=RANK, alpha=ALPHA, seed=2)
    torch.testing.assert_close(logits(model), logits(plain), rtol=0, atol=0)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert sorted(trained) == sorted(adapters(model))
    assert len(trained) == 2 * 2 * len(PROJECTIONS)
    assert torch.equal(model.layers[0].qkv_proj.weight, plain.layers[0].qkv_proj.weight)


def test_a_seed_decides_the_adapters() -> None:
    first, same, other = base(), base(), base()
    for model, seed in ((first, 2), (same, 2), (other, 3)):
        add_lora(model, rank=RANK, alpha=ALPHA, seed=seed)
    name = "layers.1.down_proj.lora_a"
    assert torch.equal(adapters(first)[name], adapters(same)[name])
    assert not torch.equal(adapters(first)[name], adapters(other)[name])


@pytest.mark.parametrize("model_type", ["qwen2", "llama", "qwen3"])
def test_the_saved_model_is_merged_and_an_ordinary_one(model_type: str, tmp_path: Path) -> None:
    model = adapted(model_type)
    LocalEngine(model, tokenizer()).save(tmp_path)
    loaded = load_model(tmp_path)
    assert not adapters(loaded)
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-5, atol=1e-5)
    assert (logits(loaded) - logits(base(model_type))).abs().max() > 0.1


def test_what_resuming_needs_is_the_base_and_the_adapters_bit_for_bit(tmp_path: Path) -> None:
    model = adapted()
    engine = LocalEngine(model, tokenizer(), trainer=Trainer(model))
    engine.forward_backward(batch(), GrpoLoss(0.2, 0.2))
    engine.optim_step(1e-2)
    engine.save(tmp_path, with_states=True)
    assert torch.equal(load_model(tmp_path).layers[0].o_proj.weight, base().layers[0].o_proj.weight)

    def trainer(fresh: Decoder) -> Trainer:
        add_lora(fresh, rank=RANK, alpha=ALPHA, seed=77)  # other ones, which those of the folder replace
        return Trainer(fresh)

    again = LocalEngine.open(tmp_path, trainer=trainer)
    assert again.publish() == engine.publish()
    for one in (engine, again):
        one.forward_backward(batch(), GrpoLoss(0.2, 0.2))
        one.optim_step(1e-2)
    assert again.publish() == engine.publish()


def test_the_reference_shares_what_is_frozen_and_stays_what_it_was(tmp_path: Path) -> None:
    model = adapted()
    engine = LocalEngine(model, tokenizer(), trainer=Trainer(model))
    engine.keep_reference()
    assert isinstance(engine.reference, Decoder)
    assert engine.reference.embed_tokens.weight is model.embed_tokens.weight
    samples = [Sample(prompt_ids=np.array([3, 4]), completion_ids=np.array([5, 6, 1]), advantage=1.0)]
    before = engine.ref_logprobs(samples)[0]
    np.testing.assert_array_equal(before, engine.logprobs(samples)[0])
    engine.forward_backward(batch(), GrpoLoss(0.2, 0.2))
    engine.optim_step(1e-1)
    np.testing.assert_array_equal(engine.ref_logprobs(samples)[0], before)
    assert np.abs(engine.logprobs(samples)[0] - before).max() > 1e-2


def test_the_sampler_draws_from_the_adapted_model(tmp_path: Path) -> None:
    engine = LocalEngine(adapted(), tokenizer(), trainer=Trainer(adapted()))
    rollouts = engine.sample([Prompt(ids=[3, 4, 5], num_samples=4)], SamplingParams(max_tokens=8), seed=1)[0]
    samples = [
        Sample(prompt_ids=rollout.prompt_ids, completion_ids=rollout.completion_ids, advantage=1.0)
        for rollout in rollouts
    ]
    for rollout, found in zip(rollouts, engine.logprobs(samples), strict=True):
        np.testing.assert_allclose(rollout.sampler_logprobs, found, atol=1e-5)


def test_the_gradients_are_those_of_the_merged_matrix_by_the_chain_rule() -> None:
    model = adapted()
    plain = base()
    for one, other in zip(plain.layers, model.layers, strict=True):
        for name in PROJECTIONS:
            getattr(one, name).weight = torch.nn.Parameter(getattr(other, name).merged().detach())
    losses = [Trainer(one).forward_backward(batch(), GrpoLoss(0.2, 0.2))["loss"] for one in (model, plain)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    for one, other in zip(plain.layers, model.layers, strict=True):
        for name in PROJECTIONS:
            slope, adapter = getattr(one, name).weight.grad, getattr(other, name)  # W = W0 + s B A
            torch.testing.assert_close(adapter.lora_b.grad, ALPHA / RANK * slope @ adapter.lora_a.T)
            torch.testing.assert_close(adapter.lora_a.grad, ALPHA / RANK * adapter.lora_b.T @ slope)
            assert adapter.weight.grad is None


@pytest.fixture
def with_peft() -> Callable[[Decoder], Decoder]:
    peft = pytest.importorskip("peft")

    def wrap(model: Decoder) -> Decoder:
        """Put peft's adapters on the plain model and give them the tensors of ours."""
        theirs = copy.deepcopy(base())
        settings = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(PROJECTIONS), lora_dropout=0.0)
        peft.inject_adapter_in_model(settings, theirs)
        with torch.no_grad():
            for name, tensor in adapters(model).items():
                stem, _, kind = name.rpartition(".")
                their_name = {"lora_a": "lora_A", "lora_b": "lora_B"}[kind]
                theirs.get_parameter(f"{stem}.{their_name}.default.weight").copy_(tensor)
        return theirs

    return wrap


def test_loss_and_gradients_are_pefts(with_peft: Callable[[Decoder], Decoder]) -> None:
    ours = adapted()
    theirs = with_peft(ours)
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=1e-6, atol=1e-6)
    losses = [Trainer(model).forward_backward(batch(), GrpoLoss(0.2, 0.2))["loss"] for model in (ours, theirs)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-7)
    theirs_of = {
        name.replace(".default.weight", "").lower(): parameter.grad
        for name, parameter in theirs.named_parameters()
        if "lora_" in name
    }
    ours_of = {name.lower(): parameter.grad for name, parameter in ours.named_parameters() if "lora_" in name}
    assert theirs_of.keys() == ours_of.keys()
    for name, grad in ours_of.items():
        torch.testing.assert_close(grad, theirs_of[name], rtol=1e-5, atol=1e-7)


def test_peft_counts_as_many_trained_numbers(with_peft: Callable[[Decoder], Decoder]) -> None:
    ours = adapted()
    counts = [
        sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        for model in (ours, with_peft(ours))
    ]
    assert counts[0] == counts[1]
