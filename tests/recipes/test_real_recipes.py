"""The recipes for real models: the paper's figures, planned without a network, and run end to end by a stand-in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from hone.config import RlStage, SftStage, load_recipe
from hone.models.folders import EMBEDDED
from hone.pipeline.run import make_plan, run_recipe

DISTILLED = {  # base, initial learning rate
    "distill-qwen-1.5b": ("Qwen/Qwen2.5-Math-1.5B", 1e-4),
    "distill-qwen-7b": ("Qwen/Qwen2.5-Math-7B", 8e-5),
    "distill-qwen-14b": ("Qwen/Qwen2.5-14B", 7e-5),
    "distill-qwen-32b": ("Qwen/Qwen2.5-32B", 6e-5),
    "distill-llama-8b": ("meta-llama/Llama-3.1-8B", 5e-5),
    "distill-llama-70b": ("meta-llama/Llama-3.3-70B-Instruct", 2e-5),
}
REAL = ("r1-zero", "r1", *DISTILLED)


def rl(recipe: str, stage: str) -> RlStage:
    found = next(found for found in load_recipe(recipe).stage if found.name == stage)
    assert isinstance(found, RlStage)
    return found


def offline(*command: str, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cache)}
    return subprocess.run(
        [sys.executable, *command], env=environment, cwd=cache, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("recipe", ["r1-zero", "r1"])
def test_r1_zero_takes_the_papers_steps(recipe: str) -> None:
    first, second = rl(recipe, "r1_zero_32k"), rl(recipe, "r1_zero")
    assert second.start_from == first.name
    assert (first.sampling.max_tokens, second.sampling.max_tokens) == (32_768, 65_536)
    # 512 of 650 rollouts end at step 8,192 of the paper's 10,400, as near to 8,200 as a rollout of 16 steps comes.
    assert first.steps * first.updates_per_step == 8_192
    assert (first.steps + second.steps) * second.updates_per_step == 10_400


@pytest.mark.parametrize(
    ("recipe", "stage", "temperature"),
    [
        ("r1-zero", "r1_zero_32k", 1.0),
        ("r1-zero", "r1_zero", 1.0),
        ("r1", "r1_zero_32k", 1.0),
        ("r1", "r1_zero", 1.0),
        ("r1", "reasoning_rl_maths", 1.0),
        ("r1", "reasoning_rl", 1.0),
        ("r1", "all_scenario_rl", 0.7),
    ],
)
def test_every_rl_stage_has_the_papers_settings(recipe: str, stage: str, temperature: float) -> None:
    found = rl(recipe, stage)
    assert found.problems_per_step * found.group_size == 8_192
    assert found.problems_per_step * found.group_size // found.updates_per_step == 32 * 16
    assert (found.group_size, found.sampling.temperature) == (16, temperature)
    assert (found.clip_low, found.clip_high, found.kl_coef) == (10, 10, 0.001)
    assert found.reference_every * found.updates_per_step == 400
    assert (found.optimizer.learning_rate, found.optimizer.final_share) == (3e-6, 1)


def test_the_last_rl_has_general_prompts_in_the_last_400_of_1700_steps() -> None:
    found = rl("r1", "all_scenario_rl")
    assert found.general is not None
    assert found.steps == 1_700 // 16
    assert round(found.steps * found.general.last_share) == 400 // 16


@pytest.mark.parametrize("name", DISTILLED)
def test_a_student_learns_with_the_papers_settings(name: str) -> None:
    stage = load_recipe(name).stage[0]
    assert isinstance(stage, SftStage)
    assert (stage.start_from, stage.optimizer.learning_rate) == DISTILLED[name]
    assert (stage.batch_size, stage.optimizer.final_share, stage.objective) == (64, 0.1, "sft")


def test_real_recipes_plan_without_a_network(tmp_path: Path) -> None:
    # What does not import the hub's library cannot fetch from it.
    script = f"""
import sys
from pathlib import Path
from hone.config import load_recipe
from hone.pipeline.estimate import estimates
from hone.pipeline.run import make_plan
for name in {REAL!r}:
    for settings in ((), ("preset=stand-in",)):
        plan = make_plan(load_recipe(name, settings), Path("run"))
        assert all(take.memory is not None for take in estimates(plan.recipe, plan.models).values()), name
assert not {{"huggingface_hub", "datasets", "torch"}} & set(sys.modules), "planning imports too much"
"""
    done = offline("-c", script, cache=tmp_path)
    assert not done.returncode, done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", REAL)
def test_a_stand_in_reads_nothing_from_the_hub(name: str, tmp_path: Path) -> None:
    plan = make_plan(load_recipe(name, ("preset=stand-in",)), tmp_path)
    own = {stage.name for stage in plan.recipe.stage}
    for stage in plan.recipe.stage:
        assert set(stage.inputs) <= own | set(EMBEDDED)
        assert not stage.files


def test_a_run_without_its_hub_model_is_refused_before_any_work(tmp_path: Path) -> None:
    settings = ("--set", "preset=stand-in", "--set", "distill.start_from=Qwen/Qwen2.5-32B")
    script = "from hone.cli import main; main()"
    done = offline("-c", script, "run", "distill-qwen-32b", *settings, "--out", "run", cache=tmp_path)
    assert done.returncode == 2
    assert "model 'Qwen/Qwen2.5-32B' is not a folder here and could not be had from the hub" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_hub_model_is_hashed_by_its_name(tmp_path: Path) -> None:
    def hash_with(base: str) -> str:
        recipe = load_recipe("distill-qwen-32b", (f"distill.start_from={base}",))
        return make_plan(recipe, tmp_path / "run").manifest.stages["aime"].hash

    assert hash_with("Qwen/Qwen2.5-32B") == hash_with("Qwen/Qwen2.5-32B") != hash_with("Qwen/Qwen2.5-14B")


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_a_stand_in_runs_end_to_end(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, ("preset=stand-in",))
    summary = json.loads(run_recipe(recipe, tmp_path, Console(quiet=True)).read_text())
    assert {model["stage"] for model in summary["models"]} >= set(recipe.stage[-1].inputs[:1])
    released = tmp_path / "release" / "release"
    for card in released.glob("*/README.md"):
        assert f"`hone run {name} --set preset=stand-in`" in card.read_text()
        assert recipe.summary not in card.read_text(), "that is of another model"
    assert {folder.name for folder in released.iterdir()} == set(recipe.stage[-1].models)  # type: ignore[union-attr]
