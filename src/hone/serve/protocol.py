"""Requests as OpenAI's API writes them, checked; and errors in its form. Knows no model and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import from_json

from hone.types import SamplingParams

MAX_CHOICES = 128
MAX_LOGPROBS = 20
COLDEST, NARROWEST = 0.01, 1e-6  # below, dividing by a temperature or adding up a share leaves float32's range
# Parameters that change nothing in an answer, and those that would, with the values by which they ask for nothing.
IGNORED = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"}
UNSUPPORTED = {
    "audio", "best_of", "echo", "frequency_penalty", "function_call", "functions", "logit_bias", "modalities",
    "prediction", "presence_penalty", "reasoning_effort", "response_format", "suffix", "tool_choice", "tools",
    "verbosity", "web_search_options",
}  # fmt: skip
NEUTRAL: tuple[object, ...] = (0, False, "", [], {}, ["text"], "none", "auto", {"type": "text"})


class ApiError(Exception):
    """A refusal of one request, with its HTTP status."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None,
        kind: str = "invalid_request_error", headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.kind = status, message, param, code, kind
        self.headers = headers

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def _texts(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _content(value: object) -> object:
    """Join a message's parts, which must be text."""
    if not isinstance(value, list):
        return value
    if not all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        raise ValueError("only parts of type text are supported")
    texts = [part.get("text") for part in value]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a part has no text")
    return "".join(texts)


def _prompts(value: object) -> object:
    """Return one text, several, one list of token ids or several as a list of prompts."""
    if isinstance(value, str) or (isinstance(value, list) and value and all(type(item) is int for item in value)):
        value = [value]
    if not isinstance(value, list) or not value:
        raise ValueError("must be a text, a list of texts, a list of token ids, or a list of such lists")
    if not (all(isinstance(item, str) for item in value) or all(map(_are_ids, value))):
        raise ValueError("must be a text, a list of texts, a list of token ids, or a list of such lists")
    return value


def _are_ids(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, frozen=True, extra="ignore")


class ApiMessage(_Model):
    """One turn. What a client sends back of an answer besides its content, the thinking above all, is left out."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_content)]


class StreamOptions(_Model):
    """How a stream is written."""

    include_usage: bool = False
    include_obfuscation: bool = False  # there is none


class Asked(_Model):
    """What chats and completions have in common. R1's advice stands where the client says nothing."""

    model: str | None = None
    n: int = Field(default=1, ge=1, le=MAX_CHOICES)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=256)]], BeforeValidator(_texts), Field(max_length=4)
    ] = []
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    temperature: float = Field(default=0.6, ge=0, le=2)
    top_p: float = Field(default=0.95, ge=0, le=1)
    top_k: int = Field(default=0, ge=0, lt=2**31)
    min_p: float = Field(default=0.0, ge=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)

    def params(self, max_tokens: int) -> SamplingParams:
        return SamplingParams(
            max_tokens=max_tokens,
            temperature=max(self.temperature, COLDEST) if self.temperature else 0.0,
            top_p=max(self.top_p, NARROWEST),
            top_k=self.top_k,
            min_p=self.min_p,
            stop=tuple(self.stop),
            num_likeliest=self.num_logprobs or 0,
        )

    @property
    def wanted_tokens(self) -> int | None:
        """How long a completion may become; None leaves it to the server."""
        return self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        """How many alternatives to list with each token's log-probability; None lists no log-probabilities."""
        raise NotImplementedError


class ChatRequest(Asked):
    """A request to /v1/chat/completions."""

    messages: Annotated[list[ApiMessage], FailFast(), Field(min_length=1, max_length=4096)]
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=MAX_LOGPROBS)

    @field_validator("top_logprobs")
    @classmethod
    def _need_logprobs(cls, value: int, info: ValidationInfo) -> int:
        if value and not info.data.get("logprobs"):
            raise ValueError("logprobs must be true for there to be alternatives")
        return value

    @property
    def wanted_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        return self.top_logprobs if self.logprobs else None


class CompletionRequest(Asked):
    """A request to /v1/completions."""

    prompt: Annotated[list[Any], BeforeValidator(_prompts), Field(max_length=MAX_CHOICES)]
    max_tokens: int | None = Field(default=16, ge=1)
    logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)

    @property
    def num_logprobs(self) -> int | None:
        return self.logprobs


_Request = TypeVar("_Request", bound=Asked)


def read_request(kind: type[_Request], body: bytes) -> _Request:
    """Check a request's body; refuse it by the first parameter that is wrong, unknown or not supported here."""
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object")
    given = {key: item for key, item in value.items() if item is not None and key not in IGNORED}
    for key in given.keys() - kind.model_fields.keys():
        if key not in UNSUPPORTED:
            raise ApiError(400, f"unknown parameter: {key[:64]!r}", param=key[:64], code="unknown_parameter")
        if given.pop(key) not in NEUTRAL:
            raise ApiError(400, f"{key} is not supported by this server", param=key, code="unsupported_parameter")
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = _path(first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise ApiError(400, f"{param}: {message}", param=param, code="invalid_value") from error


def _path(place: Sequence[int | str]) -> str:
    """Write `("messages", 0, "role")` as `messages[0].role`."""
    first, *rest = place
    return str(first) + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in rest)
