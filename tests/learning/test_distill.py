"""A student of either family comes closer to its teacher's distribution; with the sign flipped it moves away."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from hone.config import SftStage, parse_recipe
from hone.engine.local import trainer
from hone.engine.local.engine import LocalEngine
from hone.models.decoder import Decoder, DecoderConfig, ModelType
from hone.models.loading import load_model, save_model
from hone.models.tokenizer import word_tokenizer
from hone.stages import sft
from hone.stages.context import StageContext
from hone.types import Prompt, SamplingParams

WORDS = [f"w{number}" for number in range(20)]
MAX_TOKENS = 8


def save_tiny(folder: Path, seed: int, model_type: ModelType, width: int, std: float) -> Path:
    """Write a tiny model; large random weights give it opinions."""
    folder.mkdir()
    tokenizer = word_tokenizer(
        WORDS, special=["<unk>", "<|end|>"], eos="<|end|>", chat_template="{{messages[0].content}}"
    )
    model = Decoder(
        DecoderConfig(
            model_type=model_type, vocab_size=tokenizer.vocab_size, hidden_size=width, intermediate_size=2 * width,
            num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=32,
        )
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0) if "norm" in name else parameter.normal_(std=std, generator=generator)
    save_model(model, folder)
    tokenizer.save(folder)
    return folder


def prompts() -> list[list[str]]:
    return [list(np.random.default_rng(number).choice(WORDS, 3)) for number in range(96)]


def outputs(engine: LocalEngine, seed: int) -> list[tuple[int, Tensor]]:
    """Return the length of each prompt, and the ids of it with an output of the model."""
    asked = [Prompt(ids=engine.tokenizer.encode(" ".join(words))) for words in prompts()]
    drawn = engine.sample(asked, SamplingParams(max_tokens=MAX_TOKENS), seed=seed)
    return [(len(r.prompt_ids), torch.from_numpy(np.append(r.prompt_ids, r.completion_ids))) for (r,) in drawn]


@torch.no_grad()
def divergence(student: Path, teacher: Path, objective: str) -> float:
    """Return the objective, on fresh outputs: of the teacher for `logits`, of the student for `on-policy`."""
    forward = objective == "logits"
    visited = outputs(LocalEngine.open(teacher if forward else student), seed=99)
    models = (load_model(teacher), load_model(student)) if forward else (load_model(student), load_model(teacher))
    found = []
    for start, ids in visited:
        p, q = (model.logits(model(ids[None]))[0, start - 1 : -1].log_softmax(-1) for model in models)
        found.append((p.exp() * (p - q)).sum(-1))
    return torch.cat(found).mean().item()


def distil(folder: Path, objective: str, family: ModelType) -> tuple[float, float]:
    """Train a student on its teacher's outputs; return the divergences before and after."""
    teacher, student = save_tiny(folder / "big", 1, "qwen2", 32, 0.25), save_tiny(folder / "own", 2, family, 16, 0.05)
    rows = []
    engine = LocalEngine.open(teacher)
    for start, ids in outputs(engine, seed=5):
        prompt, completion = (engine.tokenizer.decode(part.tolist()) for part in (ids[:start], ids[start:]))
        rows.append({"prompt": prompt, "completion": completion})
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    table = {
        "name": "student", "kind": "sft", "start_from": "own", "data": {"path": str(folder / "rows.jsonl")},
        "objective": objective, "teacher": "big", "batch_size": 24, "epochs": 10,
        "optimizer": {"learning_rate": 5e-3}, "sampling": {"max_tokens": MAX_TOKENS},
    }  # fmt: skip
    stage = parse_recipe({"name": "learn", "stage": [table]}, "test").stage[0]
    assert isinstance(stage, SftStage)
    models = {"own": student, "big": teacher}
    sft.run(stage, StageContext(name="student", folder=folder, seed=0, models=models, console=Console(quiet=True)))
    return divergence(student, teacher, objective), divergence(folder / "checkpoint", teacher, objective)


@pytest.mark.parametrize("family", ["qwen2", "llama"])
@pytest.mark.parametrize("objective", ["logits", "on-policy"])
def test_a_student_comes_closer_to_its_teacher(objective: str, family: ModelType, tmp_path: Path) -> None:
    before, after = distil(tmp_path, objective, family)
    assert after < 0.8 * before, (before, after)


@pytest.mark.parametrize("objective", ["logits", "on-policy"])
def test_with_the_sign_flipped_it_moves_away(objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = trainer.distribution_kl

    def flipped(*args: object) -> tuple[Tensor, Tensor]:
        kl, entropy = real(*args)  # type: ignore[arg-type]
        return -kl, entropy

    monkeypatch.setattr(trainer, "distribution_kl", flipped)
    before, after = distil(tmp_path, objective, "qwen2")
    assert after > 1.2 * before, (before, after)
