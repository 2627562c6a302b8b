"""A released model: its folder loads elsewhere, its card says what the run did, its licences came along."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from hone.config import ReleaseStage, parse_recipe
from hone.models.folders import find_model
from hone.models.loading import load_model
from hone.pipeline.run import run_recipe
from hone.stages import release
from hone.stages.card import Source, combined_licence, num_parameters
from hone.stages.context import StageContext
from hone.stages.release import stated_licence
from hone.types import HoneError

SHAPE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
LICENCE_TEXT = "The licence of the base, in full.\n"


def recipe(base: Path, **settings: Any) -> dict[str, Any]:
    """A model from nothing teaches a student, which began as another model; both are measured and released."""
    sft = {"kind": "sft", "batch_size": 4, "optimizer": {"learning_rate": 1e-3}}
    return {
        "name": "small", "threads": 1, "seed": 5, "summary": "Makes little.",
        "stage": [
            {**sft, "name": "teacher", "start_from": SHAPE, "data": {"count": 8}},
            {"name": "collect", "kind": "rejection", "start_from": str(base), "problems": {"count": 4}, "samples": 2,
             "sampling": {"max_tokens": 4}},
            {**sft, "name": "student", "title": "Distilled", "start_from": str(base), "epochs": 2,
             "data": {"path": str(base.parent / "rows.jsonl")}, "objective": "sft"},
            {"name": "test", "kind": "evaluate", "models": ["student"], "samples": 2, "problems": {"count": 6},
             "sampling": {"max_tokens": 5, "temperature": 0.6, "top_p": 0.95}},
            {"name": "release", "kind": "release", "models": ["teacher", "student"], "evaluations": ["test"],
             "data_licences": {"rows.jsonl": "cc-by-4.0"}, "limits": "It knows nothing yet.", **settings},
        ],
    }  # fmt: skip


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Carry out the recipe once, with a base whose card names a licence of its own."""
    place = tmp_path_factory.mktemp("release")
    base = place / "llama-base"
    shutil.copytree(find_model("base-tiny"), base)
    (base / "README.md").write_text("---\nlicense: llama3.1\nlanguage: [en]\n---\n# A base\n")
    (base / "LICENSE").write_text(LICENCE_TEXT)
    (base / "LICENSES" / "older").mkdir(parents=True)
    (base / "LICENSES" / "older" / "NOTICE").write_text("and that of its own base\n")
    rows = [{"prompt": "use 3 8 8 make 61", "completion": "<think> so </think> <answer> 8 * 8 - 3 </answer>"}] * 5
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_recipe(parse_recipe(recipe(base), "test"), place / "run", Console(quiet=True))
    return place / "run"


def card_of(run: Path, name: str) -> tuple[dict[str, str], str]:
    text = (run / "release" / "release" / name / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    return dict(line.split(": ", 1) for line in head.splitlines()), body


def test_the_folder_gives_the_same_logits_here_and_in_transformers(run_folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = run_folder / "release" / "release" / "student"
    ids = torch.randint(100, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        checkpoint, released = load_model(run_folder / "student" / "checkpoint"), load_model(folder)
        wanted = checkpoint.logits(checkpoint(ids))
        assert torch.equal(released.logits(released(ids)), wanted)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
        torch.testing.assert_close(theirs(input_ids=ids).logits, wanted, rtol=1e-4, atol=1e-4)
    settings = theirs.generation_config
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    assert (settings.temperature, settings.top_p, settings.top_k, settings.max_new_tokens) == (0.6, 0.95, 0, 5)
    assert settings.eos_token_id == tokenizer.eos_token_id is not None
    assert tokenizer.apply_chat_template([{"role": "user", "content": "1"}], tokenize=False) == "User: 1 "


def test_the_card_says_what_the_run_did(run_folder: Path) -> None:
    head, body = card_of(run_folder, "student")
    assert head["base_model"] == '["llama-base"]'
    assert head["library_name"] == "transformers"
    assert "# small: student (Distilled)" in body
    count = num_parameters(run_folder / "student" / "checkpoint" / "model.safetensors")
    assert f"{count:,} parameters" in body
    # Five rows in batches of four, twice over: four steps.
    row = next(line for line in body.splitlines() if line.startswith("| student"))
    assert re.fullmatch(
        r"\| student \(Distilled\) \| sft \| llama-base \| rows of rows\.jsonl, 2 epochs, batches of 4 \| 4 \| 0\.001 "
        r"\| \d+ \|", row,
    ), row  # fmt: skip
    assert "seed 5" in body
    assert "| teacher |" not in body, "a stage that it does not come from"
    result = json.loads((run_folder / "test" / "results.json").read_text())[0]
    low, high = result["pass_at_1_ci95"]
    figures = f"| countdown-3/test | {result['pass_at_1']:.3f} [{low:.3f}, {high:.3f}] |"
    assert figures in body
    assert "| 2 | 6 | 0.6, 0.95 | 5 |" in body
    assert "Of the 6 problems of `test`, 0 stand among the 5 that it was trained on" in body
    assert "It knows nothing yet." in body
    assert str(run_folder.parent) not in body


def test_the_licences_of_base_and_data_come_along(run_folder: Path) -> None:
    folder = run_folder / "release" / "release" / "student"
    head, body = card_of(run_folder, "student")
    assert (head["license"], head["license_name"]) == ("other", "mit-and-llama3.1")
    assert (folder / "LICENSES" / "llama-base" / "LICENSE").read_text() == LICENCE_TEXT
    assert (folder / "LICENSES" / "llama-base" / "LICENSES" / "older" / "NOTICE").is_file()
    for text in (body, (folder / "LICENSES" / "README.md").read_text()):
        assert "| base | llama-base | llama3.1 |" in text
        assert "| data | rows.jsonl | cc-by-4.0 |" in text
        assert "Built with Llama" in text


def test_a_model_made_from_nothing_has_the_licence_of_the_recipe_alone(run_folder: Path) -> None:
    head, body = card_of(run_folder, "teacher")
    assert head["license"] == "mit"
    assert "base_model" not in head
    assert "8 generated pages" in body
    assert "None: the recipe names no evaluation of this model." in body
    assert "Built with Llama" not in body


def test_a_finished_folder_is_left_alone_and_a_lost_one_made_again(run_folder: Path) -> None:
    stage = parse_recipe(recipe(run_folder.parent / "llama-base"), "test").stage[-1]
    assert isinstance(stage, ReleaseStage)
    folders = {name: run_folder / name / "checkpoint" for name in stage.models}
    context = StageContext(
        name="release", folder=run_folder / "release", seed=5, models=folders, console=Console(quiet=True)
    )
    teacher, student = (run_folder / "release" / "release" / name for name in stage.models)
    before = {file.name: file.read_bytes() for file in student.iterdir() if file.is_file()}
    made = teacher.stat().st_mtime_ns
    shutil.rmtree(student)
    release.run(stage, context)
    assert teacher.stat().st_mtime_ns == made
    assert {file.name: file.read_bytes() for file in student.iterdir() if file.is_file()} == before


def test_a_model_from_elsewhere_is_not_released(run_folder: Path, tmp_path: Path) -> None:
    base = str(run_folder.parent / "llama-base")
    stage = ReleaseStage(name="release", kind="release", models=(base,))
    context = StageContext(
        name="release", folder=run_folder / "other", seed=0, models={base: Path(base)}, console=Console(quiet=True)
    )
    with pytest.raises(HoneError, match="not a stage of this recipe"):
        release.run(stage, context)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n", "apache-2.0"),
        ('---\r\ntags: [a]\r\nlicense: "mit"\r\n---\r\n', "mit"),
        ("---\nlicense: other\nlicense_name: qwen-research\n---\n", "qwen-research"),
        ("---\ntags: [a]\n---\nlicense: mit\n", "not stated"),
        ("license: mit\n", "not stated"),
    ],
)
def test_a_licence_is_what_the_front_matter_states(card: str, licence: str, tmp_path: Path) -> None:
    assert stated_licence(tmp_path) == "not stated"
    (tmp_path / "README.md").write_bytes(card.encode())
    assert stated_licence(tmp_path) == licence


@pytest.mark.parametrize(
    ("of_base", "of_teacher", "front"),
    [
        ("apache-2.0", "mit", "license: mit"),
        ("not stated", "mit", "license: other"),
        ("mit", "llama3.1", "license: other"),
        ("qwen-research", "qwen-research", "license: other"),
    ],
)
def test_other_licences_are_named_where_one_alone_could_be_wrong(of_base: str, of_teacher: str, front: str) -> None:
    sources = [Source("base", "a", of_base), Source("teacher", "b", of_teacher), Source("data", "c", "cc-by-nc-4.0")]
    assert combined_licence("mit", sources)[0] == front
