"""The loops in C compute what torch's operations compute, which stand in for them where there is no compiler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hone.algo import kernels
from hone.algo.losses import loss_backward
from hone.engine.local.sampler import inverse_cdf
from hone.models.attention import turn_
from hone.models.cache import Cache
from hone.models.decoder import Decoder, DecoderConfig, RmsNorm, swiglu

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="no C compiler with OpenMP here")
ROWS = [1, 7, 300]  # the last enough for several threads


def both(
    compute: Callable[[], tuple[Tensor, ...]], monkeypatch: pytest.MonkeyPatch
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return what a function returns by the loops, and by torch."""
    found = compute()
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "library", lambda: None)
        return found, compute()


def assert_alike(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("size", [96, 101])
def test_norms_and_their_gradients(rows: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(rows)
    x, grad = torch.randn(2, rows, size, generator=generator)
    norm = RmsNorm(size, 1e-6)
    torch.nn.init.normal_(norm.weight, generator=generator)

    def compute() -> tuple[Tensor, ...]:
        leaf = x.clone().requires_grad_(True)
        y = norm(leaf)
        return y.detach(), *torch.autograd.grad(y, (leaf, norm.weight), grad)

    assert_alike(*both(compute, monkeypatch))


@pytest.mark.parametrize("rows", ROWS)
def test_a_norm_of_parts_that_lie_apart(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(rows, 3, 32, generator=torch.Generator().manual_seed(0))[:, 1:]
    norm = RmsNorm(32, 1e-6)
    assert_alike(*both(lambda: (norm(x).detach(),), monkeypatch))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("size", [96, 101])
def test_swiglu_and_its_gradient(rows: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(rows)
    gate_up, grad = torch.randn(rows, 2 * size, generator=generator) * 8, torch.randn(rows, size, generator=generator)

    def compute() -> tuple[Tensor, ...]:
        leaf = gate_up.clone().requires_grad_(True)
        y = swiglu(leaf)
        return y.detach(), *torch.autograd.grad(y, leaf, grad)

    assert_alike(*both(compute, monkeypatch))


@pytest.mark.parametrize("value", [0.0, 1e-30, 88.0, 89.0, 1e4, -88.0, -1e4, float("inf"), float("nan")])
def test_swiglu_of_a_number_at_the_edge(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    gate_up = torch.full((2, 16), value)
    gate_up[:, 8:] = 1.0
    (found,), (expected,) = both(lambda: (swiglu(gate_up),), monkeypatch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-30, equal_nan=True)


def test_turning_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 5, 24, generator=generator)
    angles = torch.rand(300, 12, generator=generator)

    def compute() -> tuple[Tensor, ...]:
        turned = x.clone()
        turn_(turned[:, :3], angles.cos(), angles.sin())
        return (turned,)

    found, expected = both(compute, monkeypatch)
    assert_alike(found, expected)
    assert found[0][:, 3:].equal(x[:, 3:])


HEADS = {"a head size of 64": (9, 3, 64), "128": (4, 4, 128), "24": (4, 2, 24), "80": (2, 1, 80), "10": (2, 2, 10)}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama with biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3"},
}


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("rows", [1, 40])
def test_a_new_token_through_all_layers(
    model: dict[str, Any], heads: tuple[int, int, int], rows: int, alike: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DecoderConfig(
        **model, vocab_size=50, hidden_size=56, intermediate_size=72, num_hidden_layers=2, num_attention_heads=heads[0],
        num_key_value_heads=heads[1], head_dim=heads[2], max_position_embeddings=64,
    )  # fmt: skip
    generator, decoder, places = torch.Generator().manual_seed(0), Decoder(config), 41
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    lengths = torch.randint(0, places, (rows,), generator=generator)
    lengths = lengths[:1].expand(rows) if alike else lengths
    past = torch.randn(2, 2, rows + 1, heads[1], places, heads[2], generator=generator)
    ids = torch.randint(0, 50, (rows,), generator=generator)

    def compute() -> tuple[Tensor, ...]:
        cache = decoder.cache(rows + 1, places)
        cache.store[:], cache.lengths[:rows] = past, lengths
        with torch.inference_mode(), decoder.prepacked():
            return decoder.decode(ids, cache).clone(), cache.store.clone(), cache.lengths

    for one, other in zip(*both(compute, monkeypatch), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_token_behind_the_models_positions_is_refused() -> None:
    config = DecoderConfig(
        model_type="llama", vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1, head_dim=8, max_position_embeddings=4,
    )  # fmt: skip
    decoder = Decoder(config)
    cache, ids = decoder.cache(1, 5), torch.tensor([1])
    with torch.inference_mode(), decoder.prepacked():
        for _ in range(4):
            decoder.decode(ids, cache)
        with pytest.raises(IndexError, match=r"place 4 .* 4 positions"):
            decoder.decode(ids, cache)


@pytest.mark.parametrize("size", [50, 512, 49152])
def test_a_loss_of_logprobs_and_its_gradients(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(size)
    hidden, weight = torch.randn(70, 24, generator=generator), torch.randn(size, 24, generator=generator)
    targets, factors = torch.randint(0, size, (70,), generator=generator), torch.randn(70, generator=generator)

    def compute() -> tuple[Tensor, ...]:
        leaf, seen = weight.clone().requires_grad_(True), []

        def loss(logprobs: Tensor, entropies: Tensor, rows: slice) -> Tensor:
            seen.append((logprobs.detach().clone(), entropies))
            return (logprobs * factors[rows]).sum()

        found = loss_backward(hidden, leaf, targets, loss, chunk_elements=32 * size)
        assert leaf.grad is not None
        return found, leaf.grad, *(torch.cat(parts) for parts in zip(*seen, strict=True))

    for one, other in zip(*both(compute, monkeypatch), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", [-1, 50])
def test_a_target_outside_the_vocabulary_is_refused(target: int) -> None:
    with pytest.raises(IndexError, match="vocabulary"):
        kernels.token_figures(torch.zeros(2, 50), torch.tensor([3, target]))


def test_a_full_row_of_the_cache_is_refused() -> None:
    cache = Cache(1, 2, 1, 4, 8, torch.zeros(1))
    cache.lengths[:] = torch.tensor([2, 4])
    with pytest.raises(IndexError, match="full"):
        cache.advance(2)


@pytest.mark.parametrize("size", [50, 512, 1000, 49152])
def test_drawing_by_the_running_sum(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    logits, uniforms = torch.randn(200, size, generator=generator) * 3, torch.rand(200, generator=generator)
    tokens, logprobs = kernels.draw(logits, uniforms)
    torch.testing.assert_close(logprobs, logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0], rtol=1e-5, atol=1e-5)
    sums = logits.double().softmax(-1).cumsum(-1)
    upto = sums.gather(-1, tokens[:, None])[:, 0]
    before = torch.where(tokens > 0, sums.gather(-1, (tokens - 1).clamp(min=0)[:, None])[:, 0], 0.0)
    assert (before - 1e-6 <= uniforms).all()
    assert (uniforms <= upto + 1e-6).all()
    same = tokens == inverse_cdf(logits.softmax(-1), uniforms)
    assert same.float().mean() > 0.98  # where a number lies at a token's edge, roundings decide


@pytest.mark.parametrize("uniform", [0.0, float(np.nextafter(np.float32(1), np.float32(0)))])
@pytest.mark.parametrize("size", [50, 512, 1000])
def test_a_token_without_probability_is_never_drawn(uniform: float, size: int) -> None:
    logits = torch.full((1, size), float("-inf"))
    logits[0, size // 3 : size // 2] = 0.0
    tokens, _ = kernels.draw(logits, torch.tensor([uniform]))
    assert size // 3 <= int(tokens) < size // 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 5, 399])
def test_logits_that_are_not_finite_leave_no_logprob(value: float, place: int) -> None:
    logits = torch.zeros(2, 400)
    logits[1, place] = value
    _, logprobs = kernels.draw(logits, torch.tensor([0.5, 0.5]))
    assert logprobs.isfinite().tolist() == [True, False]


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_there_are_no_loops(compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernels.library.__wrapped__() is None


def test_without_a_cache_there_are_no_loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hone").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernels.library.__wrapped__() is None


def test_the_loops_are_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernels.library.__wrapped__() is not None
    (file,) = (tmp_path / "hone" / "kernels").iterdir()
    made = file.stat().st_mtime_ns
    assert kernels.library.__wrapped__() is not None
    assert file.stat().st_mtime_ns == made
