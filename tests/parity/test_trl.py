"""Our GRPO loss and its gradients against TRL's, on the same weights and the same tensors.

TRL pads and averages inside `_compute_loss`; Hone puts the average into token weights when it packs. What corresponds:

| TRL `loss_type` | one micro-batch of B outputs is divided by | Hone's aggregation | equal |
|---|---|---|---|
| `grpo` | each output's tokens, B, the number of micro-batches | `output` | where all micro-batches have the same B |
| `bnpo` | its tokens, the number of micro-batches | `token` | where there is one micro-batch |
| `dapo` | `num_items_in_batch`: the tokens of all micro-batches | `token` | always |
| `dr_grpo` | B `max_completion_length`, the number of micro-batches | `constant` | where all have the same B |

TRL's `num_items_in_batch` spans everything generated at once, `steps_per_generation` micro-batches, and is scaled to
those of one optimizer step; here both are the same. Ours is a sum, so cutting it anywhere is exact.

TRL 1.16 multiplies the KL term by the policy's ratio unless `use_bias_correction_kl=False` (DeepSeek-V3.2's change,
which moves the gradient even on-policy). DeepSeek-R1's equation does not, so it is off here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

trl = pytest.importorskip("trl", minversion="1.16")
transformers = pytest.importorskip("transformers")
datasets = pytest.importorskip("datasets")

from hone.algo.packing import Aggregation, pack, token_weight  # noqa: E402
from hone.engine.local.trainer import Trainer  # noqa: E402
from hone.models.decoder import Decoder  # noqa: E402
from hone.models.loading import load_model, save_model  # noqa: E402
from hone.models.tokenizer import word_tokenizer  # noqa: E402
from hone.stages.rl import GrpoLoss  # noqa: E402
from hone.types import Floats, Sample  # noqa: E402

VOCABULARY = 31
MAX_TOKENS = 18
NUM_SAMPLES = 8
CLIP_LOW, CLIP_HIGH = 0.2, 0.28
AGGREGATIONS: dict[str, Aggregation] = {"grpo": "output", "dapo": "token", "bnpo": "token", "dr_grpo": "constant"}


@pytest.fixture(scope="module")
def folder(tiny_decoder: Callable[[int], Decoder], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a tiny Qwen2 with large random weights."""
    model = tiny_decoder(VOCABULARY)
    folder = tmp_path_factory.mktemp("qwen2")
    save_model(model, folder)
    words = [f"w{number}" for number in range(2, VOCABULARY)]
    word_tokenizer(words, special=["<unk>", "<|end|>"], eos="<|end|>", chat_template="").save(folder)
    return folder


@pytest.fixture
def theirs(folder: Path, tmp_path: Path) -> Callable[..., Any]:
    def make(loss_type: str, *, beta: float, temperature: float = 1.0, micro_batches: int = 1) -> Any:
        config = trl.GRPOConfig(
            output_dir=str(tmp_path), loss_type=loss_type, beta=beta, temperature=temperature,
            epsilon=CLIP_LOW, epsilon_high=CLIP_HIGH, use_bias_correction_kl=False,
            max_completion_length=MAX_TOKENS, num_generations=4,
            per_device_train_batch_size=NUM_SAMPLES // micro_batches, gradient_accumulation_steps=micro_batches,
            use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", disable_tqdm=True,
        )  # fmt: skip
        trainer = trl.GRPOTrainer(
            model=transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            processing_class=transformers.PreTrainedTokenizerFast.from_pretrained(folder),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=config,
            train_dataset=datasets.Dataset.from_dict({"prompt": ["w2 w3"] * NUM_SAMPLES}),
        )
        trainer.current_gradient_accumulation_steps = micro_batches  # the training loop's own work
        trainer.model.train()
        return trainer

    return make


def some_samples(folder: Path, temperature: float) -> list[Sample]:
    """Ragged samples of both signs, with old and reference policies so far away that clips bite on both sides."""
    rng = np.random.default_rng(4)
    bare = [
        Sample(
            prompt_ids=rng.integers(2, VOCABULARY, size=int(rng.integers(1, 9))),
            completion_ids=rng.integers(1, VOCABULARY, size=int(rng.integers(1, MAX_TOKENS + 1))),
            advantage=float((-1) ** number * rng.uniform(0.3, 2)),
        )
        for number in range(NUM_SAMPLES)
    ]

    def far(logprobs: Floats) -> Floats:
        return (logprobs + rng.normal(0, 0.35, len(logprobs))).astype(np.float32)

    now = Trainer(load_model(folder)).logprobs(bare, temperature=temperature)
    return [
        Sample(
            prompt_ids=sample.prompt_ids, completion_ids=sample.completion_ids, advantage=sample.advantage,
            old_logprobs=far(logprobs), ref_logprobs=far(logprobs),
        )
        for sample, logprobs in zip(bare, now, strict=True)
    ]  # fmt: skip


def as_inputs(samples: list[Sample], num_items: int) -> dict[str, Tensor]:
    """Pad as TRL does: prompts on the left, completions on the right."""

    def padded(rows: list[Any], left: bool) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(
            [torch.as_tensor(row) for row in rows], batch_first=True, padding_side="left" if left else "right"
        )

    prompts, completions = [s.prompt_ids for s in samples], [s.completion_ids for s in samples]
    return {
        "prompt_ids": padded(prompts, True),
        "prompt_mask": padded([np.ones_like(row) for row in prompts], True),
        "completion_ids": padded(completions, False),
        "completion_mask": padded([np.ones_like(row) for row in completions], False),
        "advantages": torch.tensor([s.advantage for s in samples]),
        "old_per_token_logps": padded([s.old_logprobs for s in samples], False),
        "ref_per_token_logps": padded([s.ref_logprobs for s in samples], False),
        "num_items_in_batch": torch.tensor(float(num_items)),
    }


def our_step(
    folder: Path, samples: list[Sample], how: Aggregation, *, kl_coef: float, temperature: float, tmp_path: Path
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Return the figures and the gradients, these by transformers' names."""
    from safetensors.torch import load_file

    model = load_model(folder)
    num_tokens = sum(len(sample.completion_ids) for sample in samples)
    weights = [
        token_weight(sample, how, num_outputs=len(samples), num_tokens=num_tokens, max_tokens=MAX_TOKENS)
        for sample in samples
    ]
    token_loss = GrpoLoss(clip_low=CLIP_LOW, clip_high=CLIP_HIGH, kl_coef=kl_coef)
    batch = pack(samples, weights, micro_batch_tokens=30)
    assert len(batch.micro_batches) > 2
    figures = Trainer(model).forward_backward(batch, token_loss, temperature=temperature)
    slopes = copy.deepcopy(model)
    with torch.no_grad():
        for slope, parameter in zip(slopes.parameters(), model.parameters(), strict=True):
            assert parameter.grad is not None
            slope.copy_(parameter.grad)
    save_model(slopes, tmp_path)
    return figures, load_file(tmp_path / "model.safetensors")


def assert_same_gradients(ours: dict[str, Tensor], model: torch.nn.Module) -> None:
    theirs = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert ours.keys() == theirs.keys()
    assert max(gradient.abs().max() for gradient in ours.values()) > 1e-2, "gradients near zero would compare nothing"
    for name, gradient in ours.items():
        torch.testing.assert_close(
            gradient, theirs[name], rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize(
    ("loss_type", "beta", "temperature"),
    [("grpo", 0.0, 1.0), ("grpo", 0.04, 0.7), ("dapo", 0.04, 1.0), ("bnpo", 0.0, 0.7), ("dr_grpo", 0.04, 1.0)],
)
def test_one_batch(
    theirs: Callable[..., Any], folder: Path, tmp_path: Path, loss_type: str, beta: float, temperature: float
) -> None:
    samples = some_samples(folder, temperature)
    trainer = theirs(loss_type, beta=beta, temperature=temperature)
    num_items = sum(len(sample.completion_ids) for sample in samples)
    loss = trainer._compute_loss(trainer.model, as_inputs(samples, num_items))
    loss.backward()

    figures, gradients = our_step(
        folder, samples, AGGREGATIONS[loss_type], kl_coef=beta, temperature=temperature, tmp_path=tmp_path
    )
    assert figures["loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert_same_gradients(gradients, trainer.model)

    logged = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    assert logged["clip_ratio/low_mean"] > 0.02
    assert logged["clip_ratio/high_mean"] > 0.02
    assert figures["policy/clip_share"] == pytest.approx(logged["clip_ratio/region_mean"], abs=1e-6)
    assert figures["policy/entropy"] == pytest.approx(logged["entropy"], abs=1e-5)
    if beta:
        assert figures["policy/kl"] == pytest.approx(logged["kl"], abs=1e-5)


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_two_accumulated_batches(theirs: Callable[..., Any], folder: Path, tmp_path: Path, loss_type: str) -> None:
    samples = some_samples(folder, 1.0)
    trainer = theirs(loss_type, beta=0.04, micro_batches=2)
    assert trainer.args.steps_per_generation == 2
    num_items = sum(len(sample.completion_ids) for sample in samples)
    total = 0.0
    for half in (samples[: NUM_SAMPLES // 2], samples[NUM_SAMPLES // 2 :]):
        loss = trainer._compute_loss(trainer.model, as_inputs(half, num_items))
        loss.backward()
        total += loss.item()

    figures, gradients = our_step(
        folder, samples, AGGREGATIONS[loss_type], kl_coef=0.04, temperature=1.0, tmp_path=tmp_path
    )
    assert figures["loss"] == pytest.approx(total, abs=1e-5)
    assert_same_gradients(gradients, trainer.model)
