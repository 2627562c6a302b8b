"""What a stage takes at most, worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hone.config import parse_recipe
from hone.models.folders import find_model
from hone.models.loading import load_model
from hone.pipeline.estimate import Estimate, estimates

RATE = {"learning_rate": 1e-3}


def of(*stages: dict[str, Any], models: dict[str, Path] | None = None) -> dict[str, Estimate]:
    return estimates(parse_recipe({"name": "test", "stage": list(stages)}, "test"), models or {})


def test_parameters_are_those_of_the_model() -> None:
    folder = find_model("base-tiny")
    stage = {"name": "sft", "kind": "sft", "start_from": "base-tiny", "data": {"count": 8}, "optimizer": RATE}
    found = of(stage, models={"base-tiny": folder})["sft"]
    num_parameters = sum(parameter.numel() for parameter in load_model(folder).parameters())
    assert found.memory == pytest.approx(16 * num_parameters, rel=0.01)  # weights, gradients, two moments, float32
    assert (found.sampled, found.trained, found.operations) == (0, None, None)


def test_rl_samples_and_trains_on_every_output() -> None:
    stage = {
        "name": "zero", "kind": "rl", "start_from": "owner/some-2.5B-base", "steps": 3, "problems_per_step": 4,
        "group_size": 5, "sampling": {"max_tokens": 10}, "kl_coef": 0.1, "optimizer": RATE,
    }  # fmt: skip
    found = of(stage)["zero"]
    assert (found.sampled, found.trained) == (600, 600)
    assert found.memory == 2.5e9 * 20  # and the reference; keys and values of a model elsewhere are not known
    assert found.operations == 2.5e9 * 600 * (2 + 6 + 2)


def test_keys_and_values_are_those_of_the_sequences_under_way(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,'
        '"vocab_size": 9, "intermediate_size": 16, "tie_word_embeddings": true}'
    )
    stage = {
        "name": "zero", "kind": "rl", "start_from": "mine", "steps": 1, "problems_per_step": 4, "group_size": 5,
        "sampling": {"max_tokens": 10}, "optimizer": RATE,
    }  # fmt: skip
    # A layer: query and output 2 x 8 x 8, keys and values 2 x 8 x 4, three matrices of 8 x 16; the embeddings 9 x 8.
    num_parameters = 2 * (128 + 64 + 384) + 72
    cache = 20 * 10 * 2 * 2 * 4 * 4  # sequences, tokens, keys and values, layers, 2 heads of 2, bytes
    assert of(stage, models={"mine": tmp_path})["zero"].memory == 16 * num_parameters + cache


def test_rows_are_at_most_what_rejection_keeps() -> None:
    collect = {
        "name": "collect", "kind": "rejection", "start_from": "owner/some-1b", "problems": {"count": 7}, "samples": 4,
        "keep": 2, "rounds": 3, "sampling": {"max_tokens": 10},
    }  # fmt: skip
    sft = {
        "name": "sft", "kind": "sft", "start_from": "owner/some-1b", "data": {"stages": ["collect"]}, "epochs": 2,
        "optimizer": RATE,
    }  # fmt: skip
    test = {"name": "test", "kind": "evaluate", "models": ["sft", "owner/some-3b"], "problems": {"count": 5}}
    found = of(collect, sft, test)
    assert (found["collect"].sampled, found["collect"].trained) == (7 * 4 * 3 * 10, 0)
    assert (found["sft"].sampled, found["sft"].trained) == (0, 7 * 2 * 10 * 2)
    assert found["test"].sampled == 5 * 4 * 2 * 256
    assert found["test"].memory == 4 * 3e9, "that of the larger one"


def test_what_is_not_known_is_not_guessed() -> None:
    problems = {"path": "hub:owner/set", "format": "gsm8k"}
    test = {"name": "test", "kind": "evaluate", "models": ["owner/mystery"], "problems": problems}
    assert of(test)["test"] == Estimate(sampled=None, trained=0)
