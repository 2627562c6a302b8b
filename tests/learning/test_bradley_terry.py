"""A reward model must learn which of two responses is better; with the labels flipped it must learn the opposite."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from rich.console import Console
from tokenizers import models, pre_tokenizers, trainers

from hone.config import parse_recipe
from hone.engine.local import reward_model as engine
from hone.models.decoder import Decoder, DecoderConfig
from hone.models.loading import save_model
from hone.models.tokenizer import Tokenizer, word_tokenizer
from hone.pipeline.run import run_recipe
from hone.types import Message, Problem

DATA = Path(__file__).parents[2].parent / "shared" / "data"
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}assistant: "
END = "<end>"


def save_base(folder: Path, tokenizer: Tokenizer, positions: int) -> None:
    shape = DecoderConfig(
        model_type="qwen2", vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=positions,
    )  # fmt: skip
    model = Decoder(shape)
    model.reset_parameters(seed=1)
    folder.mkdir()
    save_model(model, folder)
    tokenizer.save(folder)


def train(run: Path, rows: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
    """Train on a file of pairs; return the results."""
    (run / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage = {
        "name": "rm", "kind": "reward_model", "start_from": str(run / "base"), "batch_size": 32, "reads": "response",
        "data": {"path": str(run / "pairs.jsonl")}, "optimizer": {"learning_rate": 3e-3}, **settings,
    }  # fmt: skip
    run_recipe(
        parse_recipe({"name": "learn", "threads": 1, "stage": [stage]}, "test"), run / "run", Console(quiet=True)
    )
    return json.loads((run / "run" / "rm" / "results.json").read_text())  # type: ignore[no-any-return]


def named_numbers(run: Path, count: int) -> list[dict[str, Any]]:
    """Write a base and return pairs in which the better response repeats the number that the prompt names."""
    words = [*map(str, range(10)), "say", "user:", "assistant:", "it", "is"]
    save_base(run / "base", word_tokenizer(words, special=("<unk>", END), eos=END, chat_template=TEMPLATE), 64)
    rng = random.Random(0)
    rows = []
    for _ in range(count):
        asked, other = rng.sample(range(10), 2)
        prompt = " ".join(["say", str(asked), *rng.choices(["it", "is", "say"], k=6)])
        rows.append({"prompt": prompt, "chosen": f"it is {asked}", "rejected": f"it is {other}"})
    return rows


def test_held_out_pairs_are_decided_rightly_and_the_rewards_lie_apart(tmp_path: Path) -> None:
    found = train(tmp_path, named_numbers(tmp_path, 1000), epochs=8)
    assert found["accuracy_held_out_ci95"][0] > 0.7
    assert found["accuracy_train"] > 0.7
    model = engine.RewardModel.open(tmp_path / "run" / "rm" / "checkpoint")
    asked = [
        Problem(id="p", task="t", messages=(Message(role="user", content=f"say {n} is it it say it say"),))
        for n in range(10)
    ]
    right = model.reward([(asked[n], f"it is {n}") for n in range(10)], "chat")
    wrong = model.reward([(asked[n], f"it is {9 - n}") for n in range(10)], "chat")
    assert 0 <= wrong.mean() < 0.4 < 0.6 < right.mean() <= 1


def test_with_the_labels_flipped_it_learns_the_opposite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = engine.bradley_terry
    monkeypatch.setattr(engine, "bradley_terry", lambda chosen, rejected: real(rejected, chosen))
    found = train(tmp_path, named_numbers(tmp_path, 1000), epochs=8)
    assert found["accuracy_held_out_ci95"][1] < 0.3


def test_safe_and_unsafe_responses_are_told_apart(tmp_path: Path) -> None:
    rows = [{**row, "rejected": row["chosen"].replace("it is", "say is")} for row in named_numbers(tmp_path, 300)]
    found = train(tmp_path, rows, epochs=4, objective="pointwise")
    assert found["accuracy_held_out_ci95"][0] > 0.8


def test_with_the_labels_flipped_safe_is_unsafe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = engine.binary_cross_entropy
    monkeypatch.setattr(engine, "binary_cross_entropy", lambda scores, labels: real(scores, 1 - labels))
    rows = [{**row, "rejected": row["chosen"].replace("it is", "say is")} for row in named_numbers(tmp_path, 300)]
    found = train(tmp_path, rows, epochs=4, objective="pointwise")
    assert found["accuracy_held_out_ci95"][1] < 0.2


@pytest.mark.skipif(not DATA.is_dir(), reason="no shared data on this machine")
def test_real_pairs_about_harm_are_learned_from(tmp_path: Path) -> None:
    lines = (DATA / "pref_hh_harmless_test.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:200]]
    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.train_from_iterator(
        (row[side] for row in rows for side in ("prompt", "chosen", "rejected")),
        trainers.BpeTrainer(
            vocab_size=1000, special_tokens=["<pad>", END], show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )  # fmt: skip
    save_base(tmp_path / "base", Tokenizer(core, eos=END, pad="<pad>", chat_template=TEMPLATE), 512)
    found = train(tmp_path, rows, epochs=4)
    assert found["accuracy_train"] > 0.7  # far above chance; what so few pairs teach of others is not claimed
    assert found["num_pairs"] + found["num_dropped_by_long"] == 200
    assert found["num_pairs"] > 150
    assert found["num_held_out"] > 20
