"""What `hone export` writes: a folder or file for elsewhere, with its card and licences, and nothing written over."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from hone.config import parse_recipe
from hone.export import export
from hone.models.folders import find_model
from hone.models.loading import load_model
from hone.pipeline.run import run_recipe
from hone.types import HoneError

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the embedded model for a step and measure it; no stage of the recipe releases it."""
    folder = tmp_path_factory.mktemp("export") / "run"
    stages: list[dict[str, Any]] = [
        {"name": "taught", "kind": "sft", "start_from": "base-tiny", "batch_size": 4, "data": {"count": 4},
         "optimizer": {"learning_rate": 1e-3}},
        {"name": "test", "kind": "evaluate", "models": ["taught"], "samples": 2, "problems": {"count": 3},
         "sampling": {"max_tokens": 5}},
    ]  # fmt: skip
    run_recipe(parse_recipe({"name": "small", "threads": 1, "stage": stages}, "test"), folder, QUIET)
    return folder


@pytest.mark.parametrize("place", ["taught", "taught/checkpoint"])
def test_a_stage_becomes_a_folder_with_the_card_of_a_release(place: str, run_folder: Path, tmp_path: Path) -> None:
    out = export(str(run_folder / place), "hf", tmp_path / "out", None, QUIET)
    checkpoint = run_folder / "taught" / "checkpoint"
    assert (out / "model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()
    card = (out / "README.md").read_text()
    assert "made from base-tiny by the stage `taught` of the recipe `small`" in card
    assert "| countdown" in card, "the evaluation that is done is in the card"
    assert (out / "LICENSES" / "README.md").is_file()
    assert json.loads((out / "generation_config.json").read_text())["max_new_tokens"] == 5


def test_the_weights_have_the_type_asked_for_and_the_card_says_so(run_folder: Path, tmp_path: Path) -> None:
    out = export(str(run_folder / "taught"), "hf", tmp_path / "out", "bfloat16", QUIET)
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert ", bfloat16. It was trained" in (out / "README.md").read_text()


def test_a_folder_keeps_its_own_card_and_licence(tmp_path: Path) -> None:
    base, model = find_model("base-tiny"), tmp_path / "model"
    model.mkdir()
    for file in base.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    (model / "LICENSE").write_text("in full")
    out = export(str(model), "hf", tmp_path / "out", None, QUIET)
    for name in ("README.md", "LICENSE", "model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"):
        assert (out / name).read_bytes() == (model / name).read_bytes()
    ids = torch.arange(2, 20)[None]
    with torch.no_grad():
        ours, exported = load_model(model), load_model(out)
        assert torch.equal(ours.logits(ours(ids)), exported.logits(exported(ids)))


def test_a_licence_that_is_not_stated_is_said_to_be_so(tmp_path: Path) -> None:
    base, model = find_model("base-tiny"), tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (model / name).write_bytes((base / name).read_bytes())
    console = Console(record=True, width=200)
    export(str(model), "hf", tmp_path / "out", None, console)
    assert f"the licence of {model} is not stated" in console.export_text()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(HoneError, match="mine is there already; name another place with --out"):
        export("base-tiny", "hf", tmp_path / "mine", None, QUIET)
    assert (tmp_path / "mine").read_text() == "precious"


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    with pytest.raises(HoneError, match=r"llama\.cpp has no tokenizer of whole words"):
        export("base-tiny", "gguf", tmp_path / "out.gguf", None, QUIET)
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_makes_no_language_model_is_refused(run_folder: Path, tmp_path: Path) -> None:
    stage = run_folder / "test" / "checkpoint"
    stage.mkdir()
    (stage / "config.json").write_text("{}")
    with pytest.raises(HoneError, match="stage test makes no language model"):
        export(str(run_folder / "test"), "hf", tmp_path / "out", None, QUIET)


def test_an_unknown_format_or_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HoneError, match="--format onnx: not one of hf, gguf"):
        export("base-tiny", "onnx", tmp_path / "out", None, QUIET)
    with pytest.raises(HoneError, match="--dtype int4: not one of float32, bfloat16, float16"):
        export("base-tiny", "hf", tmp_path / "out", "int4", QUIET)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_where_the_folder_is(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hone.cli", "export", "base-tiny"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (found.returncode, found.stdout) == (0, "export: exports/base-tiny\n")
    assert (tmp_path / "exports" / "base-tiny" / "model.safetensors").is_file()
