"""A reward model: a decoder whose output is one number, read at the end token that follows a prompt and a response.

On disk it is transformers' layout for sequence classification, so that other libraries score with it too. What it was
trained to read of a response, and the mean of its scores, are stored with it. It does not know where preferences come
from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hone.algo.losses import binary_cross_entropy, bradley_terry
from hone.engine.local.engine import OPTIMIZER_FILE, reuse_memory
from hone.engine.local.trainer import Trainer
from hone.models.decoder import Decoder, DecoderConfig
from hone.models.loading import load_with_head, read_raw_config, save_model
from hone.models.tokenizer import Tokenizer
from hone.rewards.format import split_completion
from hone.types import Floats, HoneError, Ids, Message, Problem, RunError

Reads = Literal["summary", "response"]
ResponseLoss = Callable[[Tensor, Tensor], Tensor]
BATCH_TOKENS = 4096  # places, padding included, that are scored at once


class ScoringDecoder(Decoder):
    """A decoder with a scalar head without bias in the place of its output matrix."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(replace(config, tie_word_embeddings=True))  # so that there is no matrix of its own
        self.score = nn.Linear(config.hidden_size, 1, bias=False)

    def scores(self, sequences: Sequence[Ids]) -> Tensor:
        """Return the scores [N] of sequences, each read at its last token."""
        lengths = torch.tensor([len(ids) for ids in sequences])
        rows = torch.zeros(len(sequences), int(lengths.max()), dtype=torch.int64)
        for row, ids in zip(rows, sequences, strict=True):
            row[: len(ids)] = torch.from_numpy(ids)
        last = self(rows)[torch.arange(len(rows)), lengths - 1]
        found: Tensor = self.score(last)[:, 0]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One term of the loss: the K sequences that it scores, its label and its weight.

    Two sequences, the better and the worse one; or a single one, whose label is 1 for good (safe) and 0 for bad.
    """

    sequences: tuple[Ids, ...]
    label: float = 1.0
    weight: float = 1.0


def pairwise_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the losses [N] of pairs by their scores [N, 2]."""
    return bradley_terry(scores[:, 0], scores[:, 1])


def pointwise_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the losses [N] of single responses by their scores [N, 1] and labels [N]."""
    return binary_cross_entropy(scores[:, 0], labels)


class RewardTrainer(Trainer):
    """AdamW over one scoring decoder."""

    model: ScoringDecoder

    def learn(self, batch: Sequence[Comparison], loss: ResponseLoss) -> tuple[float, Floats]:
        """Add the gradients of the batch's weighted mean loss; return that and the scores [N, K]."""
        lengths = [max(map(len, comparison.sequences)) for comparison in batch]
        scores = np.zeros((len(batch), len(batch[0].sequences)), np.float32)
        total = 0.0
        for chosen in _by_length(lengths, self.micro_batch_tokens // scores.shape[1]):
            part = [batch[n] for n in chosen]
            found = self.model.scores([ids for comparison in part for ids in comparison.sequences])
            found = found.view(len(part), scores.shape[1])
            weights = torch.tensor([comparison.weight / len(batch) for comparison in part])
            weighted = (loss(found, torch.tensor([comparison.label for comparison in part])) * weights).sum()
            if not math.isfinite(value := weighted.item()):
                raise RunError(f"the loss is {value}")
            weighted.backward()
            total += value
            scores[chosen] = found.detach().numpy()
        return total, scores


class RewardModel:
    """Scores responses to prompts. `reads`: what of a response it sees; `mean`: where its scores have their middle."""

    def __init__(self, model: ScoringDecoder, tokenizer: Tokenizer, *, reads: Reads, mean: float = 0.0) -> None:
        reuse_memory()
        self.model, self.tokenizer, self.reads, self.mean = model, _with_padding(tokenizer), reads, mean

    @classmethod
    def open(cls, folder: Path) -> RewardModel:
        """Read a reward model's folder; refuse a language model's. One made elsewhere reads summaries, mean 0."""
        return cls._read(folder, load_with_head(folder, ScoringDecoder, fresh=False), "summary")

    @classmethod
    def begin(cls, folder: Path, reads: Reads) -> RewardModel:
        """Read the model that training starts from: a language model gets a head of zeros."""
        begun = cls._read(folder, load_with_head(folder, ScoringDecoder, fresh=True), reads)
        return cls(begun.model, begun.tokenizer, reads=reads)

    @classmethod
    def _read(cls, folder: Path, model: ScoringDecoder, reads: Reads) -> RewardModel:
        raw = read_raw_config(folder)
        found, mean = raw.get("hone_reads", reads), raw.get("hone_score_mean", 0.0)
        if found not in ("summary", "response"):
            raise HoneError(f"{folder}/config.json: hone_reads = {found!r} is neither 'summary' nor 'response'")
        if not isinstance(mean, int | float) or not math.isfinite(mean):
            raise HoneError(f"{folder}/config.json: hone_score_mean = {mean!r} is no number")
        return cls(model, Tokenizer.load(folder), reads=found, mean=mean)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def max_tokens(self) -> int:
        """The longest sequence that it can read, the end token included."""
        return self.model.config.max_position_embeddings

    def read(self, response: str) -> str:
        """Return what the model sees of a response; of one that has no summary that may be nothing."""
        return split_completion(response).summary if self.reads == "summary" else response

    def encode(self, messages: Sequence[Message], response: str, template: str) -> Ids:
        """Return a prompt, what is read of a response, and the end token."""
        prompt = self.tokenizer.render(messages, template)
        ids = [*self.tokenizer.encode(prompt), *self.tokenizer.encode(self.read(response)), self.tokenizer.eos_id]
        return np.asarray(ids, np.int64)

    @torch.inference_mode()
    def score(self, sequences: Sequence[Ids]) -> Floats:
        """Return the raw scores [N] of sequences as `encode` makes them."""
        found = np.zeros(len(sequences), np.float32)
        for chosen in _by_length([len(ids) for ids in sequences], BATCH_TOKENS):
            found[chosen] = self.model.scores([sequences[n] for n in chosen]).numpy()
        return found

    def reward(self, cases: Sequence[tuple[Problem, str]], template: str) -> Floats:
        """Return the rewards [N], from 0 to 1, of responses to problems: the sigmoid of each score less the mean score.

        The loss of pairs leaves the scores' origin free, so the mean of the training responses takes its place: an
        average response earns 0.5, and the reward is of the size of the rules' and can be added to them. A response
        that is too long for the model is cut.
        """
        scores = self.score([self._cut(self.encode(problem.messages, text, template)) for problem, text in cases])
        return torch.from_numpy(scores).sub(self.mean).sigmoid().numpy()

    def save(self, folder: Path) -> None:
        """Write the model into a folder that exists, in the layout of `AutoModelForSequenceClassification`.

        There the score is read at the last token that is not padding: `pad_token_id` is never the end token's.
        """
        kind = self.model.config.model_type.capitalize()
        more: dict[str, Any] = {
            "architectures": [f"{kind}ForSequenceClassification"],
            "num_labels": 1,
            "pad_token_id": self.tokenizer.core.token_to_id(self.tokenizer.pad),
            "eos_token_id": self.tokenizer.eos_id,
            "hone_reads": self.reads,
            "hone_score_mean": self.mean,
        }
        save_model(self.model, folder, more=more)
        self.tokenizer.save(folder)

    def _cut(self, ids: Ids) -> Ids:
        return ids if len(ids) <= self.max_tokens else np.append(ids[: self.max_tokens - 1], self.tokenizer.eos_id)


def save_with_states(model: RewardModel, trainer: RewardTrainer, folder: Path) -> None:
    """Write what resuming needs: the model and the optimizer's state."""
    model.save(folder)
    save_file(trainer.state(), folder / OPTIMIZER_FILE)


def load_states(trainer: RewardTrainer, folder: Path) -> None:
    trainer.load_state(load_file(folder / OPTIMIZER_FILE))


def _by_length(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Yield the numbers of sequences, the longest first, in batches of at most so many places, padding included."""
    order = sorted(range(len(lengths)), key=lambda n: (-lengths[n], n))
    while order:
        rows = max(1, batch_tokens // lengths[order[0]])
        yield order[:rows]
        order = order[rows:]


def _with_padding(tokenizer: Tokenizer) -> Tokenizer:
    """Return the tokenizer with a padding token other than the end token, which the score is read at."""
    if tokenizer.pad != tokenizer.eos and tokenizer.core.token_to_id(tokenizer.pad) is not None:
        return tokenizer
    special = [token.content for token in tokenizer.core.get_added_tokens_decoder().values() if token.special]
    pad = next((token for token in special if token != tokenizer.eos), None)
    if pad is None:
        raise HoneError(
            "the tokenizer has no special token but its end token: a reward model needs one to pad with; "
            "name a pad_token in tokenizer_config.json"
        )
    return Tokenizer(
        tokenizer.core, eos=tokenizer.eos, pad=pad, chat_template=tokenizer.chat_template, bos=tokenizer.bos
    )
