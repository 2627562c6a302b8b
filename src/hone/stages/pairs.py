"""Where a reward model's preferences come from: outputs of rejection stages, or a file; by their scores, or a judge's.

Every pair that was looked at is kept on disk with its scores and judgements and why it was left out, if it was. Pairs
are made in chunks, so that an interrupted stage asks its judge about none of them twice. The module trains nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hone.config import RewardModelStage
from hone.engine.local.reward_model import RewardModel
from hone.record.files import write_atomically
from hone.rewards.judge import Judge
from hone.stages.context import StageContext
from hone.stages.judge import open_judge
from hone.stages.rejection import ROWS
from hone.tasks.preferences import Pair, is_held_out, prompt_key, read_pairs
from hone.types import Message, Verdict

PAIRS, RESPONSES = "pairs.parquet", "responses.parquet"
CHUNK = 64  # prompts
SAFE = 0.5  # the score from which a response is safe: a verifier's credit of 0 (below, it is unsafe)
SIDES = ("chosen", "rejected")

_PROMPT = [
    ("prompt_key", pa.string()),
    ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
    ("language", pa.string()),
    ("held_out", pa.bool_()),
    ("dropped_by", pa.string()),  # same, long, unjudged, margin; empty where it was kept
]


def _response_fields(prefix: str) -> list[tuple[str, pa.DataType]]:
    return [
        (f"{prefix}response", pa.string()),
        (f"{prefix}score", pa.float32()),  # from 0 to 1; null where no judgement could be read
        (f"{prefix}problem_id", pa.string()),
        (f"{prefix}source", pa.string()),  # the rejection stage or the file
        (f"{prefix}policy", pa.string()),  # checksum of the weights that wrote it
        (f"{prefix}seed", pa.int64()),
    ]


_JUDGEMENT = pa.struct([("first", pa.string()), *((side, pa.float32()) for side in SIDES)])
PAIRS_SCHEMA = pa.schema(
    [*_PROMPT, *(field for side in SIDES for field in _response_fields(f"{side}_")),
     ("judgements", pa.list_(_JUDGEMENT))]
)  # fmt: skip
RESPONSES_SCHEMA = pa.schema([*_PROMPT, *_response_fields(""), ("safe", pa.bool_())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A response with its score, from 0 to 1, and what it came from."""

    text: str
    score: float
    problem_id: str
    source: str
    policy: str | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A prompt with its responses, and which of them may be compared, by their numbers."""

    messages: tuple[Message, ...]
    language: str
    responses: tuple[Response, ...]
    pairs: tuple[tuple[int, int], ...]

    @property
    def key(self) -> str:
        return prompt_key(self.messages)


def find_rows(stage: RewardModelStage, context: StageContext, model: RewardModel) -> list[dict[str, Any]]:
    """Return every pair, or every response, that was looked at; what an earlier attempt made is read, not made anew."""
    file = context.folder / (PAIRS if stage.objective == "pairwise" else RESPONSES)
    if not file.is_file():
        asked = _asked_of_file(stage.data.path) if stage.data.path else _asked_of_stages(stage, context)
        if stage.objective == "pairwise":
            table = _make_pairs(asked, stage, context, model)
        else:
            rows = [row for one in asked for row in _labelled(one, stage, model)]
            table = pa.Table.from_pylist(rows, RESPONSES_SCHEMA)
        write_atomically(file, lambda temporary: pq.write_table(table, temporary))
    return pq.read_table(file).to_pylist()  # type: ignore[no-any-return]


def _asked_of_stages(stage: RewardModelStage, context: StageContext) -> list[Asked]:
    """Return the distinct outputs of rejection stages, kept or not, by prompt.

    A verifier's credit runs from -1 (unsafe) to 1, a score from 0 to 1. An unscorable output has none, and only a judge
    can tell what it is worth.
    """
    prompts: dict[str, dict[str, Response]] = {}
    languages: dict[str, str] = {}
    for name in stage.data.stages:
        for row in pq.read_table(context.folder.parent / name / ROWS).to_pylist():
            if row["verdict"] == Verdict.UNSCORABLE and stage.judge is None:
                continue
            response = Response(
                text=row["completion"], score=(row["credit"] + 1) / 2, problem_id=row["problem_id"], source=name,
                policy=row["policy"], seed=row["seed"],
            )  # fmt: skip
            prompts.setdefault(row["prompt"], {}).setdefault(response.text, response)
            languages.setdefault(row["prompt"], row["language"])
    return [
        Asked(
            messages=(Message(role="user", content=prompt),),
            language=languages[prompt],
            responses=tuple(found.values()),
            pairs=tuple((a, b) for b in range(len(found)) for a in range(b)),
        )
        for prompt, found in prompts.items()
    ]


def _asked_of_file(path: str) -> list[Asked]:
    """Return the pairs of a file by prompt: the chosen response has score 1, the other one 0."""
    prompts: dict[str, list[Response]] = {}
    of_prompt: dict[str, Pair] = {}
    for pair in read_pairs(path):
        key = prompt_key(pair.prompt)
        of_prompt.setdefault(key, pair)
        prompts.setdefault(key, []).extend(
            Response(text=text, score=score, problem_id=pair.id, source=path)
            for text, score in ((pair.chosen, 1.0), (pair.rejected, 0.0))
        )
    return [
        Asked(
            messages=of_prompt[key].prompt,
            language=of_prompt[key].language,
            responses=tuple(responses),
            pairs=tuple((n, n + 1) for n in range(0, len(responses), 2)),
        )
        for key, responses in prompts.items()
    ]


# --- pairs ---


class Judgement(NamedTuple):
    """One judgement of two responses: which of them the judge saw first, and its scores in their own order."""

    first: int
    scores: tuple[float, float] | None


class Candidate(NamedTuple):
    """Two responses to one prompt that may become a pair, and what speaks against it, if anything does."""

    asked: Asked
    responses: tuple[Response, Response]
    dropped_by: str


def _make_pairs(asked: Sequence[Asked], stage: RewardModelStage, context: StageContext, model: RewardModel) -> pa.Table:
    judge = open_judge(stage.judge, context) if stage.judge else None
    parts = []
    for start in range(0, len(asked), CHUNK):
        part = context.folder / "parts" / f"{start:08d}.parquet"
        if not part.is_file():
            candidates = [
                candidate
                for one in asked[start : start + CHUNK]
                for candidate in _candidates(one, stage, context, model)
            ]
            table = pa.Table.from_pylist(_judged(candidates, judge, stage, context, model, start), PAIRS_SCHEMA)
            write_atomically(part, lambda temporary, table=table: pq.write_table(table, temporary))  # type: ignore[misc]
        parts.append(pq.read_table(part))
    return pa.concat_tables(parts) if parts else PAIRS_SCHEMA.empty_table()


def _candidates(
    asked: Asked, stage: RewardModelStage, context: StageContext, model: RewardModel
) -> Iterator[Candidate]:
    """Yield a prompt's pairs at random, until enough of them can be used; with a judge, enough that it is asked of."""
    wanted = stage.pairs_per_problem
    for number in context.random("pairs", asked.key).permutation(len(asked.pairs)):
        first, second = (asked.responses[n] for n in asked.pairs[number])
        why = _unfit(asked, (first, second), stage, model)
        if not why and stage.judge is None and abs(first.score - second.score) <= stage.margin:
            why = "margin"
        yield Candidate(asked, (first, second), why)
        wanted -= not why
        if not wanted:
            return


def _unfit(asked: Asked, responses: Sequence[Response], stage: RewardModelStage, model: RewardModel) -> str:
    """Return why the model cannot learn from responses, as one word; empty where it can."""
    texts = [response.text for response in responses]
    if len({model.read(text) for text in texts}) < len(texts):
        return "same"
    longest = max(len(model.encode(asked.messages, text, stage.template)) for text in texts)
    return "long" if longest > model.max_tokens else ""


def _judged(
    candidates: Sequence[Candidate], judge: Judge | None, stage: RewardModelStage, context: StageContext,
    model: RewardModel, chunk: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return the rows of candidates; a judge, if there is one, judges each several times, sides swapped at random."""
    if judge is None:
        return [_pair_row(candidate, [], stage) for candidate in candidates]
    firsts = context.random("sides", chunk).integers(2, size=(len(candidates), stage.judgements)).tolist()
    cases = []
    for candidate, first_of in zip(candidates, firsts, strict=True):
        if not candidate.dropped_by:
            texts = [model.read(response.text) for response in candidate.responses]
            cases += [(_question(candidate.asked), texts[first], texts[1 - first]) for first in first_of]
    replies = iter(judge.compare(cases))
    return [
        _pair_row(
            candidate,
            [] if candidate.dropped_by else [_in_own_order(first, next(replies)) for first in first_of],
            stage,
        )
        for candidate, first_of in zip(candidates, firsts, strict=True)
    ]


def _in_own_order(first: int, scores: tuple[float, float] | None) -> Judgement:
    return Judgement(first, scores[::-1] if scores and first else scores)


def _pair_row(candidate: Candidate, judgements: Sequence[Judgement], stage: RewardModelStage) -> dict[str, Any]:
    """Return a row whose `chosen` has the higher score: the mean of the judgements, or without any its own."""
    read = [judgement.scores for judgement in judgements if judgement.scores]
    scores: list[float | None] = [response.score for response in candidate.responses]
    why = candidate.dropped_by
    order = (0, 1) if candidate.responses[0].score >= candidate.responses[1].score else (1, 0)
    if judgements and not read:
        scores, why = [None, None], "unjudged"
    elif judgements:
        means = np.mean(read, axis=0).tolist()
        order = (0, 1) if means[0] >= means[1] else (1, 0)
        scores, why = means, "margin" if abs(means[0] - means[1]) <= stage.margin else ""
    row = _prompt_row(candidate.asked, stage, why)
    for side, number in zip(SIDES, order, strict=True):
        row |= _response_row(candidate.responses[number], scores[number], f"{side}_")
    row["judgements"] = [
        {
            "first": SIDES[order.index(judgement.first)],
            **{side: judgement.scores and judgement.scores[n] for side, n in zip(SIDES, order, strict=True)},
        }
        for judgement in judgements
    ]
    return row


# --- single responses ---


def _labelled(asked: Asked, stage: RewardModelStage, model: RewardModel) -> Iterator[dict[str, Any]]:
    """Yield a row for each response, labelled safe or not; the same text again is left out."""
    seen: set[str] = set()
    for response in asked.responses:
        text = model.read(response.text)
        why = "same" if text in seen else _unfit(asked, [response], stage, model)
        seen.add(text)
        row = _prompt_row(asked, stage, why) | _response_row(response, response.score, "")
        yield row | {"safe": response.score >= SAFE}


def _prompt_row(asked: Asked, stage: RewardModelStage, dropped_by: str) -> dict[str, Any]:
    return {
        "prompt_key": asked.key,
        "messages": [{"role": message.role, "content": message.content} for message in asked.messages],
        "language": asked.language,
        "held_out": is_held_out(asked.key, stage.held_out_share),
        "dropped_by": dropped_by,
    }


def _response_row(response: Response, score: float | None, prefix: str) -> dict[str, Any]:
    return {
        f"{prefix}response": response.text,
        f"{prefix}score": score,
        f"{prefix}problem_id": response.problem_id,
        f"{prefix}source": response.source,
        f"{prefix}policy": response.policy,
        f"{prefix}seed": response.seed,
    }


def _question(asked: Asked) -> str:
    """Return what a judge is shown of a prompt: a single question as it is, a conversation turn by turn."""
    if len(asked.messages) == 1:
        return asked.messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in asked.messages)
