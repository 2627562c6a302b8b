"""What every stage is given: its folder, the models that it reads, the seed; and how it resumes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from hone.config import Optimizer, RlStage, SftStage
from hone.engine.local.engine import LocalEngine
from hone.engine.local.trainer import Trainer
from hone.engine.opening import open_engine
from hone.engine.transformers import TransformersTrainer
from hone.models.decoder import Decoder
from hone.models.lora import add_lora
from hone.record.checkpoints import newest_checkpoint, save_checkpoint
from hone.record.files import keep_rows, write_folder
from hone.record.progress import StageProgress
from hone.types import HoneError


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContext:
    """Where one stage works. `models` maps each name in the stage's inputs to a model folder."""

    name: str
    folder: Path
    seed: int
    models: Mapping[str, Path]
    console: Console

    @property
    def checkpoint(self) -> Path:
        """The model that the stage makes."""
        return self.folder / "checkpoint"

    @property
    def resume(self) -> Path:
        """The checkpoints that the stage resumes from."""
        return self.folder / "resume"

    def progress(self, total: int) -> StageProgress:
        return StageProgress(self.console, self.name, total)

    def random(self, *purpose: str | int) -> np.random.Generator:
        """Return a generator for one purpose, e.g. one step, that depends on nothing that ran before."""
        return np.random.default_rng([self.seed, *(_number(part) for part in (self.name, *purpose))])

    def draw_seed(self, *purpose: str | int) -> int:
        return int(self.random(*purpose).integers(2**31))

    def open(
        self, stage: SftStage | RlStage, start: Callable[[Callable[[Decoder], Trainer]], LocalEngine]
    ) -> tuple[LocalEngine, int]:
        """Return the engine and the step to go on from: the newest sound checkpoint's, or what `start` makes and 0."""
        step, folder, damaged = newest_checkpoint(self.resume)
        for line in damaged:
            self.console.print(line, style="yellow", highlight=False)
        for log in ("metrics.jsonl", "evaluations.jsonl"):
            keep_rows(self.folder / log, lambda row: bool(folder) and row["step"] <= step)

        def trainer(model: Decoder) -> Trainer:
            ours = isinstance(model, Decoder)
            if stage.lora and not ours:
                raise HoneError(f"stage {self.name}: lora: not for a model that is run through transformers")
            if stage.lora:
                add_lora(model, rank=stage.lora.rank, alpha=stage.lora.alpha, seed=self.draw_seed("lora"))
            return (Trainer if ours else TransformersTrainer)(
                model,
                weight_decay=stage.optimizer.weight_decay,
                max_grad_norm=stage.optimizer.max_grad_norm,
                micro_batch_tokens=stage.optimizer.micro_batch_tokens,
            )

        return (open_engine(folder, trainer=trainer) if folder else start(trainer)), step

    def save_resume(self, engine: LocalEngine, step: int) -> None:
        save_checkpoint(self.resume, step, lambda folder: engine.save(folder, with_states=True))

    def save_model(self, engine: LocalEngine) -> None:
        write_folder(self.checkpoint, engine.save)


def cost(
    num_parameters: int, *, sampled: int = 0, trained: int = 0, read: int = 0, num_frozen: int = 0
) -> dict[str, float]:
    """Return what a step cost, in tokens and in arithmetic, as metrics.

    A token costs two operations a parameter to sample or to read (as a teacher, reference or reward model does) and six
    to train on (Kaplan et al. 2020, section 2.1), of which the two for the parameter's own gradient are not spent on a
    frozen one. Every stage writes these for each step.
    """
    operations = num_parameters * (2 * sampled + 2 * read + 6 * trained) - num_frozen * 2 * trained
    return {"tokens/sampled": sampled, "tokens/trained": trained, "compute/tflop": operations / 1e12}


def learning_rate(optimizer: Optimizer, update: int, num_updates: int) -> float:
    """Return the rate of one update: a linear warm-up, then a cosine down to the final share."""
    if update < optimizer.warmup_steps:
        return optimizer.learning_rate * (update + 1) / optimizer.warmup_steps
    done = (update - optimizer.warmup_steps) / max(1, num_updates - optimizer.warmup_steps)
    share = optimizer.final_share + (1 - optimizer.final_share) * 0.5 * (1 + np.cos(np.pi * done))
    return optimizer.learning_rate * float(share)


def _number(part: str | int) -> int:
    return part if isinstance(part, int) else zlib.crc32(part.encode())
