"""Answers in the form of OpenAI's API, whole or as the chunks of a stream, made of tokens as they come.

A stream says the same as a whole answer, in pieces. Knows no network.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hone.models.streaming import CompletionText, Piece
from hone.models.tokenizer import Tokenizer
from hone.serve.model_thread import Drawn
from hone.types import FinishReason

UNLIKELIEST = -9999.0  # OpenAI's figure for a log-probability that is too low to tell; JSON has no minus infinity


class Token(NamedTuple):
    """A drawn token, and how much of the completion's text was there before it."""

    drawn: Drawn
    offset: int


class Choice:
    """One completion as it grows."""

    def __init__(self, index: int, tokenizer: Tokenizer, text: CompletionText) -> None:
        self.index, self.tokenizer, self.text = index, tokenizer, text
        self.num_tokens, self.num_thinking = 0, 0
        self.finish_reason: FinishReason | None = None
        self.length = 0  # of the text so far
        self.thinking, self.answer = "", ""  # what has been added since it was last taken
        self.tokens: list[Token] = []  # likewise, without the end token

    def push(self, drawn: Drawn) -> None:
        if drawn.token != self.tokenizer.eos_id:
            self.tokens.append(Token(drawn, self.length))
        self._add(self.text.push(drawn.token))
        self.num_tokens += 1
        self.num_thinking += self.text.thinking
        self.finish_reason = drawn.finish_reason
        if self.finish_reason:
            self._add(self.text.end())

    def _add(self, piece: Piece) -> None:
        self.thinking += piece.thinking
        self.answer += piece.answer
        self.length += len(piece.thinking) + len(piece.answer)

    def take(self) -> tuple[Piece, list[Token]]:
        """Return what has been added, once."""
        taken = Piece(self.thinking, self.answer), self.tokens
        self.thinking, self.answer, self.tokens = "", "", []
        return taken


class Answer:
    """The answer to one request: all its choices, and how they are written. Subclasses write those of one endpoint."""

    kind, chunk_kind, prefix = "", "", ""

    def __init__(
        self, model: str, tokenizer: Tokenizer, texts: Sequence[CompletionText], *,
        num_prompt_tokens: int, num_logprobs: int | None, with_usage: bool = False,
    ) -> None:  # fmt: skip
        self.model, self.tokenizer = model, tokenizer
        self.choices = [Choice(index, tokenizer, text) for index, text in enumerate(texts)]
        self.num_prompt_tokens, self.num_logprobs, self.with_usage = num_prompt_tokens, num_logprobs, with_usage
        self.id, self.created = f"{self.prefix}-{uuid.uuid4().hex}", int(time.time())

    @property
    def finished(self) -> bool:
        return all(choice.finish_reason for choice in self.choices)

    def push(self, drawn: Drawn) -> None:
        self.choices[drawn.choice].push(drawn)

    def whole(self) -> dict[str, Any]:
        """Return the answer once all choices have finished."""
        choices = [self._choice(choice, self._whole(*choice.take())) for choice in self.choices]
        return self._head(self.kind, choices) | {"usage": self.usage()}

    def first_chunks(self) -> Iterator[dict[str, Any]]:
        """Yield what a stream begins with."""
        return iter(())

    def chunks(self, indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Yield what has been added to some choices."""
        for choice in (self.choices[index] for index in indices):
            if choice.thinking or choice.answer or choice.finish_reason:
                yield self._chunk([self._choice(choice, self._part(*choice.take()))])

    def last_chunks(self) -> Iterator[dict[str, Any]]:
        """Yield what a stream ends with."""
        if self.with_usage:
            yield self._chunk([]) | {"usage": self.usage()}

    def usage(self) -> dict[str, Any]:
        completion = sum(choice.num_tokens for choice in self.choices)
        return {
            "prompt_tokens": self.num_prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.num_prompt_tokens + completion,
            "completion_tokens_details": {"reasoning_tokens": sum(choice.num_thinking for choice in self.choices)},
        }

    def _token_text(self, token: int) -> str:
        tokenizer = self.tokenizer
        return tokenizer.eos if token == tokenizer.eos_id else tokenizer.decode([token])

    def _head(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return self._head(self.chunk_kind, choices) | ({"usage": None} if self.with_usage else {})

    def _choice(self, choice: Choice, part: dict[str, Any]) -> dict[str, Any]:
        return {"index": choice.index, "logprobs": None, **part, "finish_reason": choice.finish_reason}

    def _whole(self, piece: Piece, tokens: Sequence[Token]) -> dict[str, Any]:
        raise NotImplementedError

    def _part(self, piece: Piece, tokens: Sequence[Token]) -> dict[str, Any]:
        raise NotImplementedError


class ChatAnswer(Answer):
    """The answer of /v1/chat/completions: the thinking is `reasoning_content`."""

    kind, chunk_kind, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def first_chunks(self) -> Iterator[dict[str, Any]]:
        for choice in self.choices:
            yield self._chunk([self._choice(choice, {"delta": {"role": "assistant", "content": ""}})])

    def _whole(self, piece: Piece, tokens: Sequence[Token]) -> dict[str, Any]:
        message = {"role": "assistant", "content": piece.answer, "reasoning_content": piece.thinking or None}
        return {"message": message, **self._logprobs(tokens)}

    def _part(self, piece: Piece, tokens: Sequence[Token]) -> dict[str, Any]:
        fields = {"reasoning_content": piece.thinking, "content": piece.answer}
        return {"delta": {name: text for name, text in fields.items() if text}, **self._logprobs(tokens)}

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any]:
        if self.num_logprobs is None:
            return {}
        return {"logprobs": {"content": [self._token(token.drawn) for token in tokens]}}

    def _token(self, drawn: Drawn) -> dict[str, Any]:
        alternatives = [self._entry(token, logprob) for token, logprob in drawn.likeliest]
        return self._entry(drawn.token, drawn.logprob) | {"top_logprobs": alternatives}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._token_text(token)
        whole = "\N{REPLACEMENT CHARACTER}" not in text  # else the token is part of a character
        data = list(text.encode()) if whole else None
        return {"token": text, "logprob": max(logprob, UNLIKELIEST), "bytes": data}


class CompletionAnswer(Answer):
    """The answer of /v1/completions: the text as it was drawn."""

    kind, chunk_kind, prefix = "text_completion", "text_completion", "cmpl"

    def _whole(self, piece: Piece, tokens: Sequence[Token]) -> dict[str, Any]:
        return {"text": piece.answer, **self._logprobs(tokens)}

    _part = _whole

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any]:
        if self.num_logprobs is None:
            return {}
        logprobs = {
            "tokens": [self._token_text(token.drawn.token) for token in tokens],
            "token_logprobs": [token.drawn.logprob for token in tokens],
            "top_logprobs": [self._alternatives(token.drawn) for token in tokens] if self.num_logprobs else None,
            "text_offset": [token.offset for token in tokens],
        }
        return {"logprobs": logprobs}

    def _alternatives(self, drawn: Drawn) -> dict[str, float]:
        """Return the likeliest tokens' texts, and the drawn one's; of tokens that read alike, the likeliest counts."""
        found: dict[str, float] = {}
        for token, logprob in (*drawn.likeliest, (drawn.token, drawn.logprob)):
            found.setdefault(self._token_text(token), max(logprob, UNLIKELIEST))
        return found
