"""The engine of one process: sampler and trainer share one decoder, so publishing copies nothing."""

from __future__ import annotations

import copy
import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file, save_file

from hone.algo.losses import Direction
from hone.engine.base import TokenLoss
from hone.engine.local.sampler import Sampler
from hone.engine.local.trainer import Trainer
from hone.models.decoder import Decoder
from hone.models.loading import checksum, load_model, save_model
from hone.models.lora import adapters, merged, without_adapters
from hone.models.tokenizer import Tokenizer
from hone.types import Floats, HoneError, PackedBatch, Prompt, Rollout, Sample, SamplingParams

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OPTIMIZER_FILE, REFERENCE_FILE, ADAPTER_FILE = "optimizer.safetensors", "reference.safetensors", "adapter.safetensors"


class LocalEngine:
    """Implements `Engine` on one device: a CUDA device where there is one, else the CPU."""

    def __init__(
        self, model: Decoder, tokenizer: Tokenizer, *, trainer: Trainer | None = None, sampler: Sampler | None = None
    ) -> None:
        self.model, self.tokenizer, self.trainer = model, tokenizer, trainer
        if tokenizer.vocab_size > self.vocab_size:
            raise HoneError(f"the tokenizer has {tokenizer.vocab_size} symbols, but the model only {self.vocab_size}")
        reuse_memory()
        self.sampler = sampler or Sampler(model, tokenizer)
        self.reference: Decoder | None = None
        self.teacher: Decoder | None = None
        self._version = 0

    @classmethod
    def open(cls, folder: Path, *, trainer: Callable[[Decoder], Trainer] | None = None) -> Self:
        """Read a model folder and, where it is a checkpoint, the states that go with it."""
        return cls.begin(cls.load(folder), folder, trainer=trainer)

    @staticmethod
    def load(folder: Path) -> Decoder:
        return load_model(folder).to(DEVICE)

    @classmethod
    def begin(cls, model: Decoder, folder: Path, *, trainer: Callable[[Decoder], Trainer] | None = None) -> Self:
        """Take up a folder's model with what else is there: the tokenizer, and a checkpoint's states."""
        engine = cls(model, Tokenizer.load(folder), trainer=trainer and trainer(model))
        engine._load_states(folder)
        return engine

    def _load_states(self, folder: Path) -> None:
        if (folder / ADAPTER_FILE).is_file():
            self.model.load_state_dict(load_file(folder / ADAPTER_FILE), strict=False)
        if self.trainer and (folder / OPTIMIZER_FILE).is_file():
            self.trainer.load_state(load_file(folder / OPTIMIZER_FILE))
        if (folder / REFERENCE_FILE).is_file():
            self.keep_reference()
            assert self.reference is not None
            self.reference.load_state_dict(load_file(folder / REFERENCE_FILE), strict=False)

    @property
    def policy_version(self) -> int:
        return self._version

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def num_frozen(self) -> int:
        """Count those of the parameters that are not trained."""
        return sum(parameter.numel() for parameter in self.model.parameters() if not parameter.requires_grad)

    @property
    def vocab_size(self) -> int:
        return self.model.config.vocab_size

    @property
    def num_positions(self) -> int:
        """How many tokens a prompt and its completion may have together."""
        return self.sampler.num_positions

    @property
    def num_teacher_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.teacher.parameters()) if self.teacher else 0

    def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams, *, seed: int,
        on_finish: Callable[[int], None] | None = None, on_token: Callable[[int, int], None] | None = None,
    ) -> list[list[Rollout]]:  # fmt: skip
        return self.sampler.sample(
            prompts, params, seed=seed, policy_version=self._version, on_finish=on_finish, on_token=on_token
        )

    def stream(
        self, prompts: Sequence[Prompt], params: SamplingParams, *, seeds: Sequence[int]
    ) -> Iterator[tuple[int, Rollout]]:
        """Yield each rollout as it finishes, after its number; each has a seed of its own (`Sampler.stream`)."""
        return self.sampler.stream(prompts, params, seeds=seeds)

    def logprobs(self, samples: Sequence[Sample], *, temperature: float = 1.0) -> list[Floats]:
        return self._training.logprobs(samples, temperature=temperature)

    def ref_logprobs(self, samples: Sequence[Sample], *, temperature: float = 1.0) -> list[Floats]:
        if self.reference is None:
            raise RuntimeError("no reference policy was kept")
        return self._training.logprobs(samples, temperature=temperature, model=self.reference)

    def keep_reference(self) -> None:
        frozen = {id(parameter): parameter for parameter in self.model.parameters() if not parameter.requires_grad}
        self.reference = copy.deepcopy(self.model, frozen).requires_grad_(False)  # what is frozen is shared

    def keep_teacher(self, folder: Path) -> None:
        _require_same_vocabulary(Tokenizer.load(folder), self.tokenizer, folder)
        self.teacher = self.load(folder).requires_grad_(False)

    def distill_backward(self, batch: PackedBatch, direction: Direction) -> dict[str, float]:
        if self.teacher is None:
            raise RuntimeError("no teacher was kept")
        return self._training.distill_backward(batch, self.teacher, direction)

    def forward_backward(
        self, batch: PackedBatch, token_loss: TokenLoss, *, temperature: float = 1.0
    ) -> dict[str, float]:
        return self._training.forward_backward(batch, token_loss, temperature=temperature)

    def optim_step(self, learning_rate: float) -> float:
        return self._training.optim_step(learning_rate)

    def publish(self) -> str:
        self._version += 1
        return checksum(self.model)

    def save(self, folder: Path, *, with_states: bool = False) -> None:
        self._save_model(folder, with_states)
        self.tokenizer.save(folder)
        if with_states:
            self._save_states(folder)

    def _save_model(self, folder: Path, with_states: bool) -> None:
        trained = adapters(self.model)
        if not trained:
            save_model(self.model, folder)
        elif with_states:  # merged and taken apart again, the weights would not be the same bits
            save_model(without_adapters(self.model), folder)
            save_file(trained, folder / ADAPTER_FILE)
        else:
            save_model(merged(self.model), folder)

    def _save_states(self, folder: Path) -> None:
        save_file(self._training.state(), folder / OPTIMIZER_FILE)
        if self.reference is not None:
            state = self.reference.state_dict()
            changing = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
            save_file({name: state[name].contiguous() for name in changing}, folder / REFERENCE_FILE)

    @property
    def _training(self) -> Trainer:
        if self.trainer is None:
            raise RuntimeError("this engine was opened for sampling only")
        return self.trainer


def _require_same_vocabulary(teacher: Tokenizer, student: Tokenizer, folder: Path) -> None:
    """Refuse a teacher whose ids or end token mean something else, by the first difference."""
    taught, known = teacher.core.get_vocab(), student.core.get_vocab()
    where = f"teacher {folder}: its vocabulary is not the student's"
    if taught != known:
        symbol = min(taught.items() ^ known.items(), key=lambda item: item[::-1])[0]
        ids = [vocabulary.get(symbol, "missing") for vocabulary in (taught, known)]
        differs = f"the id of {symbol!r} is {ids[0]} there and {ids[1]} in the student"
        raise HoneError(f"{where}: {differs}; learn from the teacher's outputs instead, as rows")
    if teacher.eos != student.eos:
        raise HoneError(f"{where}: its texts end with {teacher.eos!r}, the student's with {student.eos!r}")


def reuse_memory() -> None:
    """Have glibc keep freed memory instead of handing each large tensor's pages back to the system.

    Fresh pages are zeroed by the kernel at first touch, which costs small models a tenth to a fifth of their time.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of <malloc.h>
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**30)


def set_threads(num_threads: int) -> None:
    """Use this many CPU threads; 0: one for each core."""
    if num_threads:
        torch.set_num_threads(num_threads)
