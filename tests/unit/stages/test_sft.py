"""The supervised stage and its kinds of distillation: what a step costs, what is refused, and resuming."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from hone.config import SftStage, parse_recipe
from hone.engine.local.engine import LocalEngine
from hone.models.decoder import Decoder, DecoderConfig
from hone.models.loading import save_model
from hone.models.tokenizer import word_tokenizer
from hone.stages import sft
from hone.stages.context import StageContext
from hone.types import HoneError

WORDS = [f"w{number}" for number in range(12)]
TEMPLATE = "{{ messages[-1].content }} :"
ROWS = [
    {"prompt": f"w{n} w{n + 1}", "completion": " ".join(f"w{(n * k) % 12}" for k in range(1, 2 + n % 4))}
    for n in range(10)
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def save_tiny(folder: Path, seed: int, *, words: list[str] = WORDS, eos: str = "<|end|>", width: int = 16) -> Path:
    """Write a tiny model with large random weights."""
    folder.mkdir(parents=True)
    tokenizer = word_tokenizer(words, special=["<unk>", "<|end|>", "<|stop|>", ":"], eos=eos, chat_template=TEMPLATE)
    model = Decoder(
        DecoderConfig(
            model_type="qwen2", vocab_size=tokenizer.vocab_size, hidden_size=width, intermediate_size=24,
            num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=64,
        )
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3, generator=generator)
    save_model(model, folder)
    tokenizer.save(folder)
    return folder


def stage(**settings: Any) -> SftStage:
    table = {
        "name": "student", "kind": "sft", "start_from": "own", "batch_size": 4, "epochs": 2,
        "optimizer": {"learning_rate": 1e-2}, "sampling": {"max_tokens": 6}, "checkpoint_every": 2,
        **settings,
    }  # fmt: skip
    made = parse_recipe({"name": "test", "stage": [table]}, "test").stage[0]
    assert isinstance(made, SftStage)
    return made


class Place:
    """A folder with a student, a teacher and rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = {"own": save_tiny(folder / "own", 1), "big": save_tiny(folder / "big", 2, width=24)}
        self.rows = folder / "rows.jsonl"
        self.rows.write_text("\n".join(json.dumps(row) for row in ROWS))

    def run(self, name: str = "run", **settings: Any) -> Path:
        given = stage(**{"data": {"path": str(self.rows)}, **settings})
        console = Console(quiet=True)
        folder = self.folder / name
        context = StageContext(name="student", folder=folder, seed=3, models=self.models, console=console)
        sft.run(given, context)
        return folder


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def metrics(folder: Path, file: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """Read a log without what differs from run to run."""
    rows = [json.loads(line) for line in (folder / file).read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "throughput/"))} for row in rows]


def num_parameters(folder: Path) -> int:
    return sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_teacher_with_equal_weights_teaches_nothing(place: Place) -> None:
    folder = place.run(objective="logits", teacher="own")
    assert [(row["loss"], row["policy/grad_norm"]) for row in metrics(folder)] == [(0, 0)] * 6
    assert weights(folder / "checkpoint") == weights(place.models["own"])


def test_a_step_tells_its_cost(place: Place) -> None:
    """Each prompt has 3 tokens; the completions of rows 0 to 9 have 1, 2, 3, 4, 1, 2, 3, 4, 1, 2 words and the end."""
    own, big = num_parameters(place.models["own"]), num_parameters(place.models["big"])
    tokens = 10 * 3 + 23 + 10
    costs = {}
    for objective, teacher in (("sft", {}), ("logits", {"teacher": "big"}), ("on-policy", {"teacher": "big"})):
        rows = metrics(place.run(objective, objective=objective, batch_size=10, epochs=1, **teacher))
        (costs[objective],) = rows
    plain, logits, student = costs["sft"], costs["logits"], costs["on-policy"]
    assert plain["tokens/trained"] == logits["tokens/trained"] == tokens
    assert plain["tokens/sampled"] == logits["tokens/sampled"] == 0
    assert "completion/length_mean" not in plain
    assert plain["compute/tflop"] * 1e12 == pytest.approx(6 * own * tokens)
    assert logits["compute/tflop"] * 1e12 == pytest.approx(6 * own * tokens + 2 * big * tokens)
    drawn = student["tokens/sampled"]
    assert 10 <= drawn <= 10 * 6
    assert student["completion/length_mean"] == drawn / 10
    assert student["tokens/trained"] == 10 * 3 + drawn
    operations = (6 * own + 2 * big) * (10 * 3 + drawn) + 2 * own * drawn
    assert student["compute/tflop"] * 1e12 == pytest.approx(operations)


def test_held_out_outputs_are_drawn_as_the_stage_says_and_the_last_step_is_measured(place: Place) -> None:
    evaluation = {"every": 4, "samples": 1, "problems": {"count": 4}}
    folder = place.run(evaluation=evaluation, sampling={"max_tokens": 2})
    rows = metrics(folder, "evaluations.jsonl")
    assert [row["step"] for row in rows] == [4, 6]
    assert all(row["completion_length_mean"] <= 2 for row in rows)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"words": [*WORDS[:4], "w5", "w4", *WORDS[6:]]}, r"big: .* 'w4' is 9 there and 8 in the student"),
        ({"words": WORDS[:-1]}, r"big: .* 'w11' is missing there and 15 in the student"),
        ({"eos": "<|stop|>"}, r"big: .* end with '<\|stop\|>', the student's with '<\|end\|>'"),
    ],
)
def test_a_teacher_of_another_vocabulary_is_refused(
    place: Place, tmp_path: Path, other: dict[str, Any], message: str
) -> None:
    place.models["big"] = save_tiny(tmp_path / "other" / "big", 2, **other)
    with pytest.raises(HoneError, match=message):
        place.run(objective="logits", teacher="big")


@pytest.mark.parametrize("objective", ["logits", "on-policy"])
@pytest.mark.parametrize("killed_at", [1, 4])
def test_a_killed_distillation_ends_as_an_undisturbed_one(
    place: Place, objective: str, killed_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"objective": objective, "teacher": "big"}
    undisturbed = place.run("undisturbed", **settings)
    real, calls = LocalEngine.optim_step, iter(range(1, 100))

    def deadly(engine: LocalEngine, rate: float) -> float:
        if next(calls) == killed_at:
            raise KeyboardInterrupt
        return real(engine, rate)

    monkeypatch.setattr(LocalEngine, "optim_step", deadly)
    with pytest.raises(KeyboardInterrupt):
        place.run("killed", **settings)
    folder = place.run("killed", **settings)
    assert next(calls) == killed_at + 6 - (2 if killed_at == 4 else 0) + 1  # it went on from step 2 where it could
    assert weights(folder / "checkpoint") == weights(undisturbed / "checkpoint")
    assert weights(folder / "checkpoint") != weights(place.models["own"])
    assert metrics(folder) == metrics(undisturbed)
    assert len(metrics(folder)) == 6


def test_rows_of_a_data_set_may_be_messages(place: Place, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    turns = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]}
        for row in ROWS
    ]
    datasets.Dataset.from_list(turns).save_to_disk(str(tmp_path / "turns"))
    expected = place.run("from-file")
    folder = place.run("from-data-set", data={"path": str(tmp_path / "turns")})
    assert weights(folder / "checkpoint") == weights(expected / "checkpoint")


def test_without_a_network_a_hub_data_set_is_one_clear_line(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(HoneError, match=r"^hub:nobody/nothing: cannot be loaded: [^\n]+$"):
        place.run(data={"path": "hub:nobody/nothing"})
