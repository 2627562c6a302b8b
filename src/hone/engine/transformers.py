"""The engine for every architecture that our decoder does not implement: any causal model of transformers.

The verbs are those of the local engine, computed by the model's own forward pass and `generate`: slower, the same
results. This is the only file that imports transformers, and only as a model is opened. Weights are safetensors, and
code that comes with a model is never run. Distilling a distribution, reward models and adapters are not supported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hone.engine.base import TokenLoss
from hone.engine.local.engine import LocalEngine
from hone.engine.local.sampler import Running, Sampler, draw, owners_of
from hone.engine.local.trainer import Sums, Trainer
from hone.models.tokenizer import Tokenizer
from hone.types import (
    Floats,
    HoneError,
    MicroBatch,
    PackedBatch,
    Prompt,
    SamplingParams,
)

MISSING = "other models are run through transformers: pip install 'hone-r1[hub]'"


class TransformersEngine(LocalEngine):
    """Implements `Engine` for one causal model of transformers on this machine's CPU."""

    def __init__(self, model: Any, tokenizer: Tokenizer, *, trainer: Trainer | None = None) -> None:
        from transformers import GenerationConfig

        # How the folder says to sample is kept for saving; here a stage's settings alone decide.
        self.generation_config, model.generation_config = model.generation_config, GenerationConfig()
        super().__init__(model, tokenizer, trainer=trainer, sampler=GenerateSampler(model, tokenizer))

    @staticmethod
    def load(folder: Path) -> Any:
        """Read a folder's model as float32; refuse pickled weights, code of its own, and weights that do not fit."""
        try:
            from transformers import AutoModelForCausalLM
            from transformers.utils import logging
        except ImportError as error:
            raise HoneError(MISSING) from error
        logging.disable_progress_bar()
        try:
            model, report = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True,
                # The model's own formula: some faster ones leave out what an architecture adds, such as soft caps.
                attn_implementation="eager", output_loading_info=True,
            )  # fmt: skip
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            raise HoneError(f"transformers cannot read it: {' '.join(str(error).split())[:300]}") from error
        if missing := sorted(report["missing_keys"]):
            raise HoneError(f"transformers cannot read it: its weights lack {missing[0]} (and {len(missing) - 1} more)")
        for parameter in model.parameters():
            # Copied: where a file holds a tensor would decide its address, and the address the last bits of products.
            parameter.data = parameter.data.clone()
        return model.requires_grad_(True).eval()  # without dropout the trainer's policy is the sampler's

    @property
    def vocab_size(self) -> int:
        model: Any = self.model
        return int(model.config.get_text_config().vocab_size)

    def keep_teacher(self, folder: Path) -> None:
        raise HoneError(
            "a model that is run through transformers cannot learn a teacher's distribution; "
            "learn from the teacher's outputs instead, as rows"
        )

    def _save_model(self, folder: Path, with_states: bool) -> None:
        model: Any = self.model
        model.save_pretrained(folder)
        self.generation_config.save_pretrained(folder)


class TransformersTrainer(Trainer):
    """AdamW over one model of transformers, by its own logits."""

    model: Any

    def forward_backward(
        self, batch: PackedBatch, token_loss: TokenLoss, *, temperature: float = 1.0
    ) -> dict[str, float]:
        sums = Sums()
        for micro_batch in batch.micro_batches:
            logprobs, entropy = _forward(self.model, micro_batch, temperature)
            found, figures = token_loss(logprobs, self._token_batch(micro_batch))
            sums.add(found, self._tensor(micro_batch.weights), {"policy/entropy": entropy, **figures}).backward()
        return sums.means(batch.num_loss_tokens)

    def _logprobs(self, model: Any, batch: MicroBatch, temperature: float) -> Tensor:
        return _forward(model, batch, temperature)[0]


def _forward(model: Any, batch: MicroBatch, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities and the entropies [T] of the batch's completion tokens."""
    ids, mask, places = _rows(batch)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.flatten(0, 1)
    logits = logits.index_select(0, places[torch.from_numpy(batch.positions)]).float() / temperature
    normalisers = logits.logsumexp(-1)
    logprobs = logits.gather(-1, torch.from_numpy(batch.targets)[:, None])[:, 0] - normalisers
    with torch.no_grad():  # H = log Z - E[logit]
        entropy = normalisers - (logits.softmax(-1) * logits).sum(-1)
    return logprobs, entropy


def _rows(batch: MicroBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Return a flat batch as right-padded rows [N, W] and their mask, and the place of each of its S tokens in them.

    Not every architecture can share a prompt, so each completion gets a row with a prompt of its own.
    """
    segments = batch.segments
    starts = np.cumsum([0, *(segment.length for segment in segments)])
    parents = {segment.parent for segment in segments}
    chains = [
        [number] if segment.parent is None else [segment.parent, number]
        for number, segment in enumerate(segments)
        if number not in parents
    ]
    width = max(sum(segments[number].length for number in chain) for chain in chains)
    ids = torch.zeros((len(chains), width), dtype=torch.int64)
    mask, places = torch.zeros_like(ids), torch.zeros(len(batch.input_ids), dtype=torch.int64)
    for row, chain in enumerate(chains):
        column = 0
        for number in chain:
            end = column + segments[number].length
            ids[row, column:end] = torch.from_numpy(batch.input_ids[starts[number] : starts[number + 1]])
            places[starts[number] : starts[number + 1]] = torch.arange(column, end) + row * width
            column = end
        mask[row, :column] = 1
    return ids, mask, places


class GenerateSampler(Sampler):
    """Draws by a model's `generate`. `max_rows` sequences are under way at a time, and all end before others begin."""

    model: Any

    def __init__(self, model: Any, tokenizer: Tokenizer, *, max_rows: int = 64) -> None:
        self.model, self.tokenizer, self.max_rows = model, tokenizer, max_rows

    def _run(
        self, prompts: Sequence[Prompt], params: SamplingParams, uniforms: Callable[[slice], Floats],
        on_token: Callable[[int, int], None] | None,
    ) -> Iterator[tuple[int, Running]]:  # fmt: skip
        self._check(prompts, params)
        owners = owners_of(prompts)
        for start in range(0, len(owners), self.max_rows):
            chosen = slice(start, min(start + self.max_rows, len(owners)))
            rows = _Rows([Running(params, row) for row in uniforms(chosen)], start, self.tokenizer, on_token)
            self._generate(owners[chosen], rows, params.max_tokens)
            yield from enumerate(rows.sequences, start)

    @property
    def num_positions(self) -> int:
        """How many tokens a prompt and its completion may have together; a model that states none takes any number."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30)

    @torch.no_grad()
    def _generate(self, prompts: Sequence[Prompt], rows: _Rows, max_tokens: int) -> None:
        """Complete left-padded prompts."""
        from transformers import GenerationConfig

        width = max(len(prompt.ids) for prompt in prompts)
        ids = torch.full((len(prompts), width), self.tokenizer.eos_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt.ids) :] = torch.as_tensor(np.asarray(prompt.ids, np.int64))
            mask[row, width - len(prompt.ids) :] = 1
        settings = GenerationConfig(do_sample=False, max_new_tokens=max_tokens, pad_token_id=self.tokenizer.eos_id)
        self.model.generate(
            ids, attention_mask=mask, generation_config=settings,
            logits_processor=[rows.draw], stopping_criteria=[rows.ended],
        )  # fmt: skip


class _Rows:
    """The sequences of one call of `generate`, which asks it for the next tokens and for which rows have ended.

    `first` is the number of the first one among all sequences, by which `on_token` hears of them.
    """

    def __init__(
        self, sequences: Sequence[Running], first: int, tokenizer: Tokenizer,
        on_token: Callable[[int, int], None] | None,
    ) -> None:  # fmt: skip
        self.sequences, self.first, self.tokenizer, self.on_token = sequences, first, tokenizer, on_token

    def draw(self, _: Tensor, logits: Tensor) -> Tensor:
        """Draw a token for each row that has not ended; return logits [N, V] under which nothing else is chosen."""
        rows = [row for row, sequence in enumerate(self.sequences) if sequence.finish_reason is None]
        sequences = [self.sequences[row] for row in rows]
        drawn, logprobs = draw(logits[rows].float() / (sequences[0].params.temperature or 1.0), sequences)
        for row, token, logprob in zip(rows, drawn.tolist(), logprobs.tolist(), strict=True):
            self.sequences[row].note(token, logprob, self.tokenizer)
            if self.on_token:
                self.on_token(self.first + row, token)
        chosen = torch.full((len(logits),), self.tokenizer.eos_id)
        chosen[rows] = drawn
        return torch.full_like(logits, -torch.inf).scatter_(-1, chosen[:, None], 0.0)

    def ended(self, ids: Tensor, _: Any, **settings: Any) -> Tensor:
        return torch.tensor([sequence.finish_reason is not None for sequence in self.sequences])
