"""What the parity tests share: one thread, so that sums are taken in one order, and a tiny model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from hone.models.decoder import Decoder, DecoderConfig


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_decoder() -> Callable[[int], Decoder]:
    """Make a tiny Qwen2 of a given vocabulary with large random weights, the same ones each time."""

    def make(vocab_size: int) -> Decoder:
        config = DecoderConfig(
            model_type="qwen2", vocab_size=vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=64,
        )  # fmt: skip
        model = Decoder(config)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.normal_(std=0.15, generator=generator)
                if "norm" in name:
                    parameter.add_(1)
        return model

    return make
