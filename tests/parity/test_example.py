"""The one-file example computes the package's loss and gradients, and stays readable in one sitting."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from hone.algo.advantages import group_advantages
from hone.algo.packing import pack, token_weight
from hone.engine.local.trainer import Trainer
from hone.models.folders import find_model
from hone.models.loading import load_model
from hone.stages.rl import GrpoLoss
from hone.types import Sample

FILE = Path(__file__).parents[2] / "examples" / "grpo.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("grpo_example", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_fits_in_one_sitting() -> None:
    assert len(FILE.read_text().splitlines()) <= 250


def test_the_example_and_the_package_compute_the_same_loss_and_gradients(example: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    prompt, lengths, eos = [2, 116, 11, 16, 16], [3, 7, 5, 6], 1
    outputs = torch.full((4, 7), eos)
    for row, length in enumerate(lengths):
        outputs[row, : length - 1] = torch.randint(8, 100, (length - 1,), generator=generator)
    rewards = torch.tensor([2.0, 0.0, 1.0, 2.0])
    # In double precision, so that the two orders of summing differ by little.
    ours, theirs = load_model(find_model("base-tiny")).double(), load_model(find_model("base-tiny")).double()

    logprobs = example.logprobs_of(theirs, prompt, outputs)
    # Ratios from about 0.6 to 1.6, so that the clip bites on both sides.
    old = logprobs.detach() + torch.empty(4, 7).uniform_(-0.5, 0.5, generator=generator)
    mask = example.completion_mask(outputs, eos)
    assert mask.sum(1).tolist() == lengths
    loss = example.grpo_loss(logprobs, old, example.advantages_of(rewards), mask)
    loss.backward()

    advantages = group_advantages(rewards.numpy(), np.ones(4, bool))
    samples = [
        Sample(
            prompt_ids=np.array(prompt),
            completion_ids=outputs[row, :length].numpy(),
            advantage=float(advantages[row]),
            old_logprobs=old[row, :length].numpy(),
        )
        for row, length in enumerate(lengths)
    ]
    weights = [token_weight(sample, "output", num_outputs=4, num_tokens=21, max_tokens=7) for sample in samples]
    trainer = Trainer(ours)
    figures = trainer.forward_backward(pack(samples, weights, micro_batch_tokens=64), GrpoLoss(0.2, 0.2))
    assert figures["policy/clip_share"] > 0
    assert figures["loss"] == pytest.approx(loss.item(), abs=1e-6)
    for mine, his in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, his.grad, atol=1e-6, rtol=1e-5)
