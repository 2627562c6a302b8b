"""A model to hand out: a Hugging Face folder for transformers and vLLM, or one GGUF file for llama.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from rich.console import Console

from hone.config import EvaluateStage, ReleaseStage
from hone.models.folders import find_model
from hone.models.loading import copy_model, weights_dtype
from hone.record.files import write_atomically, write_folder, write_json
from hone.stages.card import MODEL_STAGES, NOT_STATED, Run, model_label
from hone.stages.release import Filler, carry_licence, find_sources, generation_config, stated_licence
from hone.types import HoneError

Format = Literal["hf", "gguf"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def export(model: str, form: str, out: Path | None, dtype: str | None, console: Console) -> Path:
    """Write a model as a folder or a GGUF file and return its path; nothing that exists is written over."""
    if form not in get_args(Format):
        raise HoneError(f"--format {form}: not one of {', '.join(get_args(Format))}")
    if dtype is not None and dtype not in DTYPES:
        raise HoneError(f"--dtype {dtype}: not one of {', '.join(DTYPES)}")
    folder, name = _find(model)
    target = out or Path("exports") / (f"{name}.gguf" if form == "gguf" else name)
    if target.exists():
        raise HoneError(f"{target} is there already; name another place with --out, or remove it")
    wanted = DTYPES[dtype] if dtype else None
    if form == "hf":
        _write_folder(folder, target, wanted, console)
    else:
        stored = weights_dtype(folder)
        kept = wanted or (stored if stored in DTYPES.values() else torch.float32)
        _write_gguf(folder, target, name, kept, console)
    return target


def _find(model: str) -> tuple[Path, str]:
    """Return a model's folder and what it goes by."""
    folder = find_model(model)
    made = _run_of(folder)
    name = f"{made[0].recipe.name}-{made[1]}" if made else Path(model_label(model)).stem
    return folder, name.lower()


def _run_of(folder: Path) -> tuple[Run, str] | None:
    """Return the run, and its stage, that a checkpoint is of; None for another folder."""
    stage = folder.resolve().parent
    if folder.resolve().name != "checkpoint" or not (stage.parent / "manifest.json").is_file():
        return None
    run = Run.read(stage.parent)
    if not isinstance(run.stage(stage.name), MODEL_STAGES):
        raise HoneError(f"{folder}: stage {stage.name} makes no language model")
    return run, stage.name


def _write_folder(folder: Path, target: Path, dtype: torch.dtype | None, console: Console) -> None:
    made = _run_of(folder)
    if made is not None:
        run, name = made
        stage = _release_stage(run, name)
        sources = find_sources(run, name, stage)
        _say_not_stated([source.name for source in sources if source.licence == NOT_STATED], console)
        write_folder(target, Filler(stage, run, name, folder, sources, dtype).fill)
        return
    _say_not_stated([str(folder)] if stated_licence(folder) == NOT_STATED else [], console)

    def fill(new: Path) -> None:
        copy_model(folder, new, dtype)
        carry_licence(folder, new)
        card = folder / "README.md"
        if card.is_file():
            (new / "README.md").write_bytes(card.read_bytes())
        if not (new / "generation_config.json").is_file():
            write_json(new / "generation_config.json", generation_config(folder))

    write_folder(target, fill)


def _release_stage(run: Run, name: str) -> ReleaseStage:
    """Return what the recipe says of releasing a model, with the evaluations that are done."""
    stages = [stage for stage in run.recipe.stage if isinstance(stage, ReleaseStage) and name in stage.models]
    evaluations = tuple(
        stage.name
        for stage in run.recipe.stage
        if isinstance(stage, EvaluateStage) and (run.folder / stage.name / "results.json").is_file()
    )
    stated = stages[0].model_dump() if stages else {"name": "export", "kind": "release", "models": (name,)}
    return ReleaseStage.model_validate({**stated, "evaluations": evaluations})


def _write_gguf(folder: Path, target: Path, name: str, dtype: torch.dtype, console: Console) -> None:
    from hone.models.gguf import write

    made = _run_of(folder)
    licence = _release_stage(*made).licence if made else stated_licence(folder)
    _say_not_stated([str(folder)] if licence == NOT_STATED else [], console)
    write_atomically(target, lambda file: write(folder, file, name=name, licence=licence, dtype=dtype))


def _say_not_stated(names: Sequence[str], console: Console) -> None:
    for name in names:
        console.print(f"export  the licence of {name} is not stated", style="yellow", highlight=False)
