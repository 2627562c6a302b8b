"""What a stage would take, before it runs: tokens, memory and arithmetic, as upper bounds where they are known.

A plan needs no network and no torch: parameters are counted from a `config.json` that is here, and a model that is on
the hub alone is as large as its name says (`Qwen2.5-32B`). What is not known stays None.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hone.config import (
    EvaluateStage,
    Recipe,
    RejectionStage,
    ReleaseStage,
    RewardModelStage,
    RlStage,
    SftStage,
    Shape,
    Stage,
)

WEIGHTS, TRAINING = 4, 12  # bytes a parameter in float32: itself; its gradient and the two moments of AdamW
ROWS = 256  # sequences that the local sampler has under way


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A model's parameters, and the bytes that keys and values of one token take; None where it is not here."""

    parameters: float
    cache: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Upper bounds, None where not known. Held-out evaluations, prompts, activations and judges come on top.

    The memory of a model that is on the hub alone leaves out keys and values.
    """

    sampled: float | None = None  # tokens
    trained: float | None = None  # tokens
    memory: float | None = None  # bytes: weights, gradients, AdamW's moments, the reference, keys and values
    operations: float | None = None


def estimates(recipe: Recipe, models: Mapping[str, Path]) -> dict[str, Estimate]:
    """Return the estimate of each stage. `models` holds the folders of models that are here."""
    sizes: dict[str, Size | None] = {}
    found: dict[str, Estimate] = {}
    for stage in recipe.stage:
        known = [
            sizes.get(model) or _size(model, models) if isinstance(model, str) else _made(model)
            for model in _models(stage)
        ]
        sizes[stage.name] = max(filter(None, known), key=lambda size: size.parameters, default=None)
        found[stage.name] = _estimate(stage, recipe, sizes[stage.name])
    return found


def _models(stage: Stage) -> tuple[str | Shape, ...]:
    """Return the models of which one at a time is run by a stage; its teacher, judge and reward models come on top."""
    if isinstance(stage, EvaluateStage):
        return stage.models
    return () if isinstance(stage, ReleaseStage) else (stage.start_from,)


def _estimate(stage: Stage, recipe: Recipe, size: Size | None) -> Estimate:
    sampled, trained = _sampled(stage), _trained(stage, recipe)
    estimate = Estimate(sampled=sampled, trained=trained)
    if isinstance(stage, ReleaseStage):
        return replace(estimate, memory=0, operations=0)
    if size is None:
        return estimate
    trains, keeps = isinstance(stage, SftStage | RlStage | RewardModelStage), bool(getattr(stage, "kl_coef", 0.0))
    memory = size.parameters * (WEIGHTS + TRAINING * trains + WEIGHTS * keeps)
    if isinstance(stage, RlStage | RejectionStage | EvaluateStage):
        rows = min(ROWS, stage.problems_per_step * stage.group_size) if isinstance(stage, RlStage) else ROWS
        memory += (size.cache or 0) * rows * stage.sampling.max_tokens
    if sampled is None or trained is None:
        return replace(estimate, memory=memory)
    # A token costs two operations a parameter to sample or to read and six to train on (Kaplan et al. 2020).
    return replace(estimate, memory=memory, operations=size.parameters * (2 * sampled + (6 + 2 * keeps) * trained))


def _sampled(stage: Stage) -> float | None:
    """Return how many tokens a stage samples if every output is as long as it may be."""
    match stage:
        case RlStage():
            outputs = stage.steps * stage.problems_per_step * stage.group_size * (1 + stage.resample)
        case RejectionStage():
            outputs = stage.problems.count * stage.samples * stage.rounds
        case EvaluateStage():
            outputs = stage.problems.count * stage.samples * len(stage.models)
        case SftStage(objective="on-policy"):
            return None
        case _:
            return 0
    return outputs * stage.sampling.max_tokens or None  # of a data set whose size is not known: None


def _trained(stage: Stage, recipe: Recipe) -> float | None:
    """Return how many tokens a stage trains on if every row is as long as it may be."""
    if isinstance(stage, RlStage):
        return stage.steps * stage.problems_per_step * stage.group_size * stage.sampling.max_tokens
    if not isinstance(stage, SftStage | RewardModelStage):
        return 0
    sources = [source for source in recipe.stage if source.name in stage.rows_of and isinstance(source, RejectionStage)]
    if not sources or not all(source.problems.count for source in sources):
        return None
    kept = [s.keep if isinstance(stage, SftStage) else s.samples * s.rounds for s in sources]
    tokens = [n * s.problems.count * s.sampling.max_tokens for n, s in zip(kept, sources, strict=True)]
    return sum(tokens) * stage.epochs


def _made(shape: Shape) -> Size:
    from hone.models.tiny import tiny_tokenizer

    raw = shape.model_dump() | {"vocab_size": tiny_tokenizer().vocab_size, "tie_word_embeddings": True}
    return _size_of(raw)


def _size(name: str, models: Mapping[str, Path]) -> Size | None:
    if name in models and (models[name] / "config.json").is_file():
        try:
            return _size_of(json.loads((models[name] / "config.json").read_text("utf-8")))
        except (ValueError, KeyError, TypeError):
            return None  # the run says what is wrong with it
    billions = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)b(?![a-z0-9])", name.rpartition("/")[2], re.IGNORECASE)
    return Size(parameters=float(billions.group(1)) * 1e9) if billions else None


def _size_of(raw: Mapping[str, Any]) -> Size:
    """Count the matrices of a decoder of the Llama family; norms and biases are a thousandth of them."""
    width, layers, heads = raw["hidden_size"], raw["num_hidden_layers"], raw["num_attention_heads"]
    head = raw.get("head_dim") or width // heads
    keys = (raw.get("num_key_value_heads") or heads) * head
    layer = 2 * width * (heads * head + keys) + 3 * width * raw["intermediate_size"]
    embeddings = raw["vocab_size"] * width * (1 if raw.get("tie_word_embeddings") else 2)
    return Size(parameters=embeddings + layers * layer, cache=2 * layers * keys * WEIGHTS)
