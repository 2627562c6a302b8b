"""The server: routes, who may ask, and how tokens become responses.

Requests go to the model's thread and their tokens come back through a queue each. A client that goes away, in a stream
or while it waits, takes its request with it.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from hone.engine.local.engine import LocalEngine
from hone.models.streaming import CompletionText, opens_thinking
from hone.serve.answers import Answer, ChatAnswer, CompletionAnswer
from hone.serve.model_thread import ModelThread, QueueFull, Request
from hone.serve.protocol import ApiError, Asked, ChatRequest, CompletionRequest, read_request
from hone.types import HoneError, Message, RunError

MAX_BODY = 4 << 20
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """What the server is told. `max_tokens` bounds a completion; the model's positions bound it with its prompt."""

    name: str
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    max_rows: int = 64
    max_waiting: int = 256
    max_tokens: int = 4096

    @property
    def loopback(self) -> bool:
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class Api:
    """The endpoints over one model."""

    def __init__(self, engine: LocalEngine, settings: ServeSettings) -> None:
        self.tokenizer, self.vocab_size = engine.tokenizer, engine.vocab_size
        self.settings = settings
        self.model = ModelThread(engine, max_rows=settings.max_rows, max_waiting=settings.max_waiting)
        routes = [
            Route("/health", self.health),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.one_model),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.complete, methods=["POST"]),
        ]
        refusals: dict[Any, Any] = {
            ApiError: _refused, HTTPException: _no_such_route, ClientDisconnect: _gone, Exception: _failed,
        }  # fmt: skip
        self.app = Starlette(
            routes=routes,
            middleware=[Middleware(Gate, settings=settings)],
            exception_handlers=refusals,
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self.model.start(asyncio.get_running_loop())
        yield
        self.model.close()

    async def health(self, _: HttpRequest) -> Response:
        """Say how many sequences are under way and wait; 503 where nothing would answer them."""
        alive = self.model.alive
        counts = {"running": self.model.num_running, "waiting": self.model.num_waiting, "rows": self.model.max_rows}
        return JSONResponse({"status": "ok" if alive else "stopped", **counts}, 200 if alive else 503)

    async def models(self, _: HttpRequest) -> Response:
        return JSONResponse({"object": "list", "data": [self._card()]})

    async def one_model(self, request: HttpRequest) -> Response:
        self._require_model(request.path_params["name"])
        return JSONResponse(self._card())

    async def chat(self, request: HttpRequest) -> Response:
        body = await _body(request)
        return await self._respond(request, *await run_in_threadpool(self._read_chat, body))

    async def complete(self, request: HttpRequest) -> Response:
        body = await _body(request)
        return await self._respond(request, *await run_in_threadpool(self._read_completion, body))

    def _read_chat(self, body: bytes) -> tuple[Asked, Request, Answer]:
        asked = read_request(ChatRequest, body)
        self._require_model(asked.model)
        messages = [
            Message(role="system" if turn.role == "developer" else turn.role, content=turn.content)
            for turn in asked.messages
        ]
        try:
            prompt = self.tokenizer.render(messages)
        except HoneError as error:
            raise ApiError(400, str(error), param="messages") from error
        request = self._request(asked, [self.tokenizer.encode(prompt)], "messages")
        opened = opens_thinking(prompt)
        texts = [self._text(request, split=True, opened=opened) for _ in range(request.num_choices)]
        return asked, request, self._answer(ChatAnswer, asked, request, texts)

    def _read_completion(self, body: bytes) -> tuple[Asked, Request, Answer]:
        asked = read_request(CompletionRequest, body)
        self._require_model(asked.model)
        prompts = [self._ids(prompt) for prompt in asked.prompt]
        request = self._request(asked, prompts, "prompt")
        texts = [self._text(request, split=False) for _ in range(request.num_choices)]
        return asked, request, self._answer(CompletionAnswer, asked, request, texts)

    def _ids(self, prompt: str | list[int]) -> list[int]:
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt)
        if not all(0 <= token < self.vocab_size for token in prompt):
            raise ApiError(400, f"prompt: token ids are numbers from 0 to {self.vocab_size - 1}", param="prompt")
        return prompt

    def _request(self, asked: Asked, prompts: Sequence[Sequence[int]], param: str) -> Request:
        max_tokens = self._room(asked, prompts, param)
        request = Request(prompts=prompts, params=asked.params(max_tokens), num_samples=asked.n, seed=asked.seed)
        rows, waiting = self.model.max_rows, self.model.max_waiting
        if asked.n > rows or request.num_choices > rows + waiting:
            raise ApiError(400, f"n: this server holds {rows} sequences at a time, {waiting} more wait", param="n")
        return request

    def _room(self, asked: Asked, prompts: Sequence[Sequence[int]], param: str) -> int:
        """Return how long the completions may become; refuse what is longer than the model or the server allows."""
        limit, longest = self.model.num_positions, max(map(len, prompts))
        if not all(prompts):
            raise ApiError(400, f"{param}: a prompt is empty: the model has nothing to continue", param=param)
        wanted = asked.wanted_tokens
        if wanted is not None and wanted > self.settings.max_tokens:
            most = self.settings.max_tokens
            raise ApiError(400, f"max_tokens: {wanted} is more than this server's {most}", param="max_tokens")
        if longest + (wanted or 1) > limit:
            message = (
                f"this model's maximum context length is {limit} tokens, but {longest} in the {param} and "
                f"{wanted or 1} in the completion were requested; shorten one of them"
            )
            raise ApiError(400, message, param=param, code="context_length_exceeded")
        return wanted or min(self.settings.max_tokens, limit - longest)

    def _text(self, request: Request, *, split: bool, opened: bool = False) -> CompletionText:
        return CompletionText(self.tokenizer, stop=request.params.stop, split=split, opened=opened)

    def _answer(self, kind: type[Answer], asked: Asked, request: Request, texts: Sequence[CompletionText]) -> Answer:
        return kind(
            self.settings.name,
            self.tokenizer,
            texts,
            num_prompt_tokens=sum(map(len, request.prompts)),
            num_logprobs=asked.num_logprobs,
            with_usage=asked.stream_options.include_usage,
        )

    async def _respond(self, http: HttpRequest, asked: Asked, request: Request, answer: Answer) -> Response:
        try:
            self.model.submit(request)
        except QueueFull as error:
            headers = {"Retry-After": "1"}
            raise ApiError(429, str(error), kind="rate_limit_error", code="queue_full", headers=headers) from error
        except RunError as error:
            raise ApiError(503, str(error), kind="server_error") from error
        if asked.stream:
            return EventStream(_events(request, answer), lambda: self.model.cancel(request))
        try:
            return await _unless_gone(http, _whole(request, answer))
        finally:
            self.model.cancel(request)

    def _require_model(self, name: str | None) -> None:
        if name not in (None, self.settings.name):
            message = f"the model {name[:200]!r} does not exist; this server has {self.settings.name!r}"
            raise ApiError(404, message, param="model", code="model_not_found")

    def _card(self) -> dict[str, Any]:
        return {
            "id": self.settings.name,
            "object": "model",
            "created": 0,
            "owned_by": "hone",
            "max_model_len": self.model.num_positions,
        }


class Gate:
    """Lets through who has the key; where there is none and the server is on loopback, who names it by a loopback name.

    The latter keeps web pages out, whose host name someone has made to mean this machine.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self.app, self.settings = app, settings
        self.expected = f"Bearer {settings.api_key}".encode() if settings.api_key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = dict(scope["headers"])
        if self.expected:
            key = headers.get(b"authorization", b"")
            if scope["path"] == "/health" or hmac.compare_digest(key, self.expected):
                return None
            message = "no valid API key: send it as Authorization: Bearer KEY"
            return _error(ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"}))
        named = headers.get(b"host", b"").decode("latin-1")
        host = named if named.endswith("]") else named.rsplit(":", 1)[0]
        if not self.settings.loopback or host in (*LOOPBACK_NAMES, self.settings.host):
            return None
        message = "this server answers to loopback names only; start it with an API key for others"
        return _error(ApiError(403, message, code="host_not_allowed"))


class EventStream(StreamingResponse):
    """A stream of server-sent events, whatever becomes of which `done` is called."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], done: Callable[[], None]) -> None:
        super().__init__(events, headers={"Cache-Control": "no-cache"})
        self.done = done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.done()


async def _events(request: Request, answer: Answer) -> AsyncIterator[str]:
    for chunk in answer.first_chunks():
        yield _event(chunk)
    try:
        while not answer.finished:
            touched = await _next_tokens(request, answer)
            for chunk in answer.chunks(touched):
                yield _event(chunk)
    except RunError as error:
        yield _event(ApiError(500, str(error), kind="server_error").body)
        return
    for chunk in answer.last_chunks():
        yield _event(chunk)
    yield "data: [DONE]\n\n"


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


async def _next_tokens(request: Request, answer: Answer) -> list[int]:
    """Push all tokens that have come since, at least one; return the choices that they belong to."""
    events = [await request.events.get()]
    while not request.events.empty():
        events.append(request.events.get_nowait())
    touched = []
    for event in events:
        if isinstance(event, RunError):
            raise event
        answer.push(event)
        touched.append(event.choice)
    return list(dict.fromkeys(touched))


async def _whole(request: Request, answer: Answer) -> Response:
    try:
        while not answer.finished:
            await _next_tokens(request, answer)
    except RunError as error:
        raise ApiError(500, str(error), kind="server_error") from error
    return JSONResponse(answer.whole())


async def _body(request: HttpRequest) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise ApiError(413, f"the body is longer than {MAX_BODY} bytes", code="request_too_large")
    return bytes(body)


async def _unless_gone(http: HttpRequest, work: Coroutine[Any, Any, Response]) -> Response:
    """Do the work unless the client goes away first."""
    tasks = [asyncio.ensure_future(one) for one in (work, _disconnected(http))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else tasks[1].result()
    finally:
        for task in tasks:
            task.cancel()


async def _disconnected(http: HttpRequest) -> Response:
    while (await http.receive())["type"] != "http.disconnect":
        pass
    raise ClientDisconnect


def _error(error: ApiError) -> Response:
    return JSONResponse(error.body, error.status, headers=error.headers)


async def _refused(_: HttpRequest, error: ApiError) -> Response:
    return _error(error)


async def _no_such_route(request: HttpRequest, error: HTTPException) -> Response:
    message = f"{request.method} {request.url.path[:200]}: {error.detail}"
    return _error(ApiError(error.status_code, message, code="unknown_url", headers=error.headers))


async def _gone(_: HttpRequest, __: ClientDisconnect) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _failed(_: HttpRequest, __: Exception) -> Response:
    return _error(ApiError(500, "the server failed; its log says more", kind="server_error"))


class Server(uvicorn.Server):
    """Ends what is under way when it is told to stop, and stops when the model's thread has ended."""

    def __init__(self, config: uvicorn.Config, model: ModelThread) -> None:
        super().__init__(config)
        self.model = model

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or not self.model.alive

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await run_in_threadpool(self.model.close)
        await super().shutdown(sockets)


def make_server(engine: LocalEngine, settings: ServeSettings) -> Server:
    api = Api(engine, settings)
    config = uvicorn.Config(
        api.app, http="h11", ws="none", log_level="warning", access_log=False, timeout_graceful_shutdown=2
    )
    return Server(config, api.model)


def listen(settings: ServeSettings) -> socket.socket:
    """Open the port; refuse one that cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=1024)
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]
        raise HoneError(f"{settings.host}, port {settings.port}: {why}; name others by --host and --port") from error


def serve(engine: LocalEngine, settings: ServeSettings, say: Callable[[str], None]) -> None:
    """Answer requests until Ctrl-C."""
    listener = listen(settings)
    server = make_server(engine, settings)
    model, port = server.model, listener.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    if not settings.loopback and not settings.api_key:
        say(f"warning: anyone who reaches {settings.host} can use this server; --api-key KEY asks for a key")
    say(
        f"{settings.name} at http://{host}:{port}/v1: {model.max_rows} sequences at a time, of up to "
        f"{model.num_positions} tokens; Ctrl-C ends"
    )
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    say("stopped")
    if server.model.failed:
        raise RunError("the model's thread ended by an error; the lines above say which")
