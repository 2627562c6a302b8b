"""Release: each model as a folder to hand out, with weights, tokenizer, template, model card and licences.

A licence is what a model's own card states, or what the recipe states of a data set. One that is stated nowhere is
called so; none is guessed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hone.config import EvaluateStage, ReleaseStage, RewardModelStage
from hone.models.folders import find_model
from hone.models.loading import copy_model
from hone.models.tokenizer import Tokenizer
from hone.record.files import write_folder, write_json, write_text
from hone.stages.card import (
    MODEL_STAGES,
    NOT_STATED,
    Run,
    Source,
    label,
    learned_files,
    licence_table,
    model_card,
    model_label,
)
from hone.stages.context import StageContext
from hone.types import HoneError

LICENCE_FILES = ("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "USE_POLICY*")  # files, and the folder of a release


def run(stage: ReleaseStage, context: StageContext) -> None:
    """Write `release/NAME` for each model; one that is there already is whole and stays."""
    made = Run.read(context.folder.parent)
    for name in stage.models:
        if not isinstance(made.stage(name), MODEL_STAGES):
            raise HoneError(f"stage {stage.name}: {name!r} is not a stage of this recipe, so its making is not known")
    for name in stage.models:
        folder = context.folder / "release" / name
        if not folder.is_dir():
            sources = find_sources(made, name, stage)
            for source in sources:
                if source.licence == NOT_STATED:
                    context.console.print(
                        f"{stage.name}  {name}: the licence of {source.name} ({source.role}) is not stated",
                        style="yellow", highlight=False,
                    )  # fmt: skip
            write_folder(folder, Filler(stage, made, name, context.models[name], sources).fill)
        context.console.print(f"{stage.name}  {name}: {folder}", highlight=False)


@dataclass(frozen=True, slots=True)
class Filler:
    """Fills the folder of one model of a run."""

    stage: ReleaseStage
    run: Run
    name: str
    checkpoint: Path
    sources: Sequence[Source]
    dtype: torch.dtype | None = None  # of the weights; as they are where None

    def fill(self, folder: Path) -> None:
        copy_model(self.checkpoint, folder, self.dtype)
        evaluations = [
            found for name in self.stage.evaluations if isinstance(found := self.run.stage(name), EvaluateStage)
        ]
        measured = [evaluation for evaluation in evaluations if self.name in evaluation.models]
        write_json(folder / "generation_config.json", generation_config(self.checkpoint, measured))
        for source in self.sources:
            if source.folder is not None:
                carry_licence(source.folder, folder / "LICENSES" / source.name.replace("/", "--"))
        licences = "\n".join(["# Licences", "", *licence_table(self.stage.licence, self.sources)])
        write_text(folder / "LICENSES" / "README.md", licences + "\n")
        card = model_card(self.stage, self.run, self.name, folder, self.sources, measured)
        write_text(folder / "README.md", card)


# ---- what it was made of


def find_sources(run: Run, name: str, stage: ReleaseStage) -> list[Source]:
    """Return the models from elsewhere and the data sets that a model was made of, the base first."""
    found: dict[str, Source] = {}
    base = run.base(name)
    if base is not None:
        found[base] = _model_source("base", base)
    for ancestor in run.ancestors(name):
        judge = getattr(ancestor, "judge", None)
        for model in ancestor.inputs:
            if run.stage(model) is None and model not in found:
                judges = judge is not None and model == judge.model
                rewards = model in ancestor.rewarders or isinstance(ancestor, RewardModelStage)
                found[model] = _model_source("judge" if judges else "reward model" if rewards else "teacher", model)
        if judge is not None and judge.endpoint:
            found.setdefault(judge.model, Source("judge", judge.model, NOT_STATED))
        for path in learned_files(ancestor):
            licence = stage.data_licences.get(path) or stage.data_licences.get(label(path), NOT_STATED)
            found.setdefault(path, Source("data", label(path), licence))
    named = {source.name for source in found.values()} | set(found)
    rest = {path: licence for path, licence in stage.data_licences.items() if path not in named}
    return [*found.values(), *(Source("data", path, licence) for path, licence in rest.items())]


def stated_licence(folder: Path) -> str:
    """Return the licence that a model folder's card states, e.g. `apache-2.0`."""
    card = folder / "README.md"
    text = card.read_text("utf-8", errors="replace") if card.is_file() else ""
    head = re.match(r"\ufeff?---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    stated: dict[str, str] = dict(
        re.findall(r"^(license|license_name):[ \t]*[\"']?([\w.+-]+)", head.group(1) if head else "", re.M)
    )
    licence = stated.get("license", NOT_STATED)
    return stated.get("license_name", licence) if licence == "other" else licence


def _model_source(role: str, name: str) -> Source:
    folder = find_model(name)
    return Source(role, model_label(name), stated_licence(folder), folder)


def carry_licence(source: Path, folder: Path) -> None:
    """Copy a model folder's licence files, and those that it carries along itself."""
    for place in sorted({place for pattern in LICENCE_FILES for place in source.glob(pattern)}):
        folder.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            shutil.copytree(place, folder / place.name)
        else:
            shutil.copyfile(place, folder / place.name)


def generation_config(checkpoint: Path, measured: Sequence[EvaluateStage] = ()) -> dict[str, Any]:
    """Say how to sample, for transformers: where an output ends, and as it was measured first."""
    tokenizer = Tokenizer.load(checkpoint)
    ends: dict[str, Any] = {
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.core.token_to_id(tokenizer.pad),
    }
    if not measured:
        return ends
    sampling = measured[0].sampling
    drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    return ends | {
        "max_new_tokens": sampling.max_tokens,
        "do_sample": sampling.temperature > 0,
        **(drawn if sampling.temperature > 0 else {}),
    }
