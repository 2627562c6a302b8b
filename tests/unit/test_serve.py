"""The server as its clients see it: OpenAI's official client, and what is not a client at all."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import openai
import pytest
import torch

from hone.engine.local.engine import LocalEngine
from hone.engine.local.sampler import Batch, Running
from hone.models.attention import Layout
from hone.models.folders import find_model
from hone.models.streaming import CompletionText
from hone.serve import ServeSettings, listen, make_server
from hone.serve.app import MAX_BODY
from hone.serve.model_thread import ModelThread
from hone.types import HoneError, Prompt, Rollout, SamplingParams, Segment

QUESTION = [{"role": "user", "content": "use 3 8 8 make 61"}]
PROMPT = "User: use 3 8 8 make 61 Assistant:"


@dataclass(frozen=True)
class Served:
    """A server in a thread of this process."""

    engine: LocalEngine
    model: ModelThread
    port: int

    def client(self, key: str = "none") -> Any:
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key=key, max_retries=0, timeout=60)

    def request(
        self, path: str, body: bytes | None = None, method: str | None = None, **headers: str
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    def health(self) -> dict[str, Any]:
        status, counts = self.request("/health")
        assert status == 200
        return counts  # type: ignore[no-any-return]

    def draw(self, seed: int, count: int, params: SamplingParams) -> list[Running]:
        """Return the sequences that the sampler draws for `PROMPT`, with the alternatives of each token."""
        ids = self.engine.tokenizer.encode(PROMPT)
        batch = Batch(self.engine.model, self.engine.tokenizer, max_rows=count, num_positions=1024)
        uniforms = np.random.default_rng(seed).random((count, params.max_tokens), np.float32)
        with self.engine.model.prepacked():
            sequences = batch.add(ids, params, uniforms)
            while batch.num_active:
                batch.step()
        return sequences

    def text(self, token: int) -> str:
        return self.engine.tokenizer.decode([token]) or self.engine.tokenizer.eos

    def sample(self, seed: int, count: int = 1, max_tokens: int = 40) -> list[Rollout]:
        """Return what the sampler draws for `PROMPT` by R1's settings."""
        params = SamplingParams(max_tokens=max_tokens, temperature=0.6, top_p=0.95)
        ids = self.engine.tokenizer.encode(PROMPT)
        return self.engine.sample([Prompt(ids=ids, num_samples=count)], params, seed=seed)[0]


@contextmanager
def serving(*, endless: bool = False, **settings: Any) -> Iterator[Served]:
    """Serve the embedded base; `endless` answers end by their length alone."""
    engine = LocalEngine.open(find_model("base-tiny"))
    if endless:
        engine.tokenizer.eos_id = -1
    settings_ = ServeSettings(name="base-tiny", port=0, **settings)
    listener = listen(settings_)
    server = make_server(engine, settings_)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    port = listener.getsockname()[1]
    thread.start()
    try:
        _until(lambda: server.started)
        # Another engine, for the tests to sample by: the served one belongs to its thread.
        yield Served(LocalEngine.open(find_model("base-tiny")), server.model, port)
    finally:
        server.should_exit = True
        thread.join(timeout=30)
    assert not thread.is_alive()
    assert not server.model.alive


def _until(reached: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(max_rows=16, max_waiting=128) as served:
        yield served


@pytest.fixture(scope="module")
def endless() -> Iterator[Served]:
    with serving(endless=True, max_rows=4, max_waiting=2) as served:
        yield served


def test_a_chat_answers_as_the_sampler_draws(served: Served) -> None:
    answer = served.client().chat.completions.create(model="base-tiny", messages=QUESTION, seed=1, max_tokens=40)
    [rollout] = served.sample(1)
    [choice] = answer.choices
    thinking, _, rest = rollout.text.removeprefix("<think>").partition("</think>")
    assert "<think>" in rollout.text
    assert rest
    assert (choice.message.reasoning_content, choice.message.content) == (thinking.strip(), rest.strip())
    assert choice.message.role == "assistant"
    assert choice.finish_reason == rollout.finish_reason
    assert answer.object == "chat.completion"
    assert answer.usage.prompt_tokens == len(rollout.prompt_ids)
    assert answer.usage.completion_tokens == len(rollout.completion_ids)
    assert answer.usage.total_tokens == len(rollout.prompt_ids) + len(rollout.completion_ids)
    tags = [served.engine.tokenizer.encode(tag)[0] for tag in ("<think>", "</think>")]
    opened, closed = (rollout.completion_ids.tolist().index(tag) for tag in tags)
    assert answer.usage.completion_tokens_details.reasoning_tokens == closed - opened


def test_a_stream_says_the_same_in_pieces(served: Served) -> None:
    asked: dict[str, Any] = {"model": "base-tiny", "messages": QUESTION, "seed": 3, "max_tokens": 40, "n": 3}
    whole = served.client().chat.completions.create(**asked, logprobs=True)
    stream = served.client().chat.completions.create(
        **asked, logprobs=True, stream=True, stream_options={"include_usage": True}
    )
    thinking, content, finish, logprobs, usage = ["", "", ""], ["", "", ""], [""] * 3, [[], [], []], []
    num_chunks = 0
    for chunk in stream:
        num_chunks += 1
        assert chunk.object == "chat.completion.chunk"
        usage += [chunk.usage] if chunk.usage else []
        for choice in chunk.choices:
            thinking[choice.index] += getattr(choice.delta, "reasoning_content", None) or ""
            content[choice.index] += choice.delta.content or ""
            logprobs[choice.index] += choice.logprobs.content if choice.logprobs else []
            finish[choice.index] += choice.finish_reason or ""
    assert num_chunks > 20
    assert usage == [whole.usage]
    for choice in whole.choices:
        assert thinking[choice.index] == (choice.message.reasoning_content or "")
        assert content[choice.index] == choice.message.content
        assert finish[choice.index] == choice.finish_reason
        assert [token.token for token in logprobs[choice.index]] == [token.token for token in choice.logprobs.content]
    assert len({choice.message.reasoning_content for choice in whole.choices}) > 1


def test_completions_and_logprobs_are_the_samplers(served: Served) -> None:
    answer = served.client().completions.create(
        model="base-tiny", prompt=PROMPT, seed=7, n=2, max_tokens=40, logprobs=0
    )
    end = served.engine.tokenizer.eos_id
    for choice, rollout in zip(answer.choices, served.sample(7, count=2), strict=True):
        assert choice.text == rollout.text
        kept = [n for n, token in enumerate(rollout.completion_ids) if token != end]
        assert choice.logprobs.token_logprobs == pytest.approx(rollout.sampler_logprobs[kept].tolist(), abs=1e-5)
        assert choice.logprobs.tokens == [served.engine.tokenizer.decode([rollout.completion_ids[n]]) for n in kept]
        for token, offset in zip(choice.logprobs.tokens, choice.logprobs.text_offset, strict=True):
            assert choice.text[offset:].lstrip().startswith(token)
    chunks = list(
        served.client().completions.create(
            model="base-tiny", prompt=PROMPT, seed=7, n=2, max_tokens=40, logprobs=0, stream=True
        )
    )
    for choice in answer.choices:
        parts = [one for chunk in chunks for one in chunk.choices if one.index == choice.index]
        assert "".join(part.text for part in parts) == choice.text
        assert [t for part in parts for t in part.logprobs.token_logprobs] == pytest.approx(
            choice.logprobs.token_logprobs, abs=1e-5
        )


def _chat_logprobs(served: Served, **asked: Any) -> list[list[Any]]:
    """Return the entries of each choice's tokens, which a stream must give alike."""
    asked |= {"model": "base-tiny", "messages": QUESTION, "logprobs": True}
    whole = served.client().chat.completions.create(**asked)
    found = [choice.logprobs.content for choice in whole.choices]
    streamed: list[list[Any]] = [[] for _ in found]
    for chunk in served.client().chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.logprobs.content if choice.logprobs else []
    for entries, same in zip(found, streamed, strict=True):
        assert [_pairs(entry) for entry in entries] == [_close(_pairs(entry)) for entry in same]
    return found


def _pairs(entry: Any) -> list[tuple[str, float]]:
    return [(one.token, one.logprob) for one in (*entry.top_logprobs, entry)]


def _close(pairs: Sequence[tuple[str, float]]) -> list[tuple[str, Any]]:
    return [(text, pytest.approx(logprob, abs=1e-5)) for text, logprob in pairs]


def test_a_chats_alternatives_are_the_samplers(served: Served) -> None:
    params = SamplingParams(max_tokens=40, temperature=0.6, top_p=0.95, num_likeliest=5)
    drawn = served.draw(7, 2, params)
    found = _chat_logprobs(served, seed=7, n=2, max_tokens=40, top_logprobs=5)
    for entries, sequence in zip(found, drawn, strict=True):
        kept = [n for n, token in enumerate(sequence.ids) if token != served.engine.tokenizer.eos_id]
        assert len(entries) == len(kept) > 10
        for entry, n in zip(entries, kept, strict=True):
            expected = [(served.text(token), logprob) for token, logprob in sequence.likeliest[n]]
            expected.append((served.text(sequence.ids[n]), sequence.logprobs[n]))
            assert _pairs(entry) == _close(expected)
            values = [one.logprob for one in entry.top_logprobs]
            assert values == sorted(values, reverse=True)
            assert all(bytes(one.bytes).decode() == one.token for one in entry.top_logprobs)
            assert dict(_pairs(entry)[:-1]).get(entry.token, entry.logprob) == entry.logprob


def test_alternatives_are_those_of_the_models_distribution(served: Served) -> None:
    """Of the temperature's, before truncation: top-k leaves one token to draw, and twenty to list."""
    ids = torch.tensor(served.engine.tokenizer.encode(PROMPT))
    model = served.engine.model
    with torch.inference_mode():
        hidden = model.flat(ids, Layout.of([Segment(len(ids))]))[-1:]
        expected = (model.logits(hidden)[0].float() / 1.5).log_softmax(-1).topk(20)
    [[entry]] = _chat_logprobs(served, max_tokens=1, top_logprobs=20, temperature=1.5, extra_body={"top_k": 1})
    assert [one.logprob for one in entry.top_logprobs] == pytest.approx(expected.values.tolist(), abs=1e-4)
    assert [one.token for one in entry.top_logprobs] == [served.text(token) for token in expected.indices.tolist()]
    assert _pairs(entry)[0] == (entry.token, entry.logprob)


def test_a_completions_alternatives_are_the_samplers_and_the_drawn_token(served: Served) -> None:
    params = SamplingParams(max_tokens=30, temperature=2.0, num_likeliest=2)
    asked: dict[str, Any] = {
        "model": "base-tiny", "prompt": PROMPT, "seed": 3, "n": 2, "max_tokens": 30, "temperature": 2, "top_p": 1,
        "logprobs": 2,
    }  # fmt: skip
    whole = served.client().completions.create(**asked)
    chunks = list(served.client().completions.create(**asked, stream=True))
    sizes = set()
    for choice, sequence in zip(whole.choices, served.draw(3, 2, params), strict=True):
        kept = [n for n, token in enumerate(sequence.ids) if token != served.engine.tokenizer.eos_id]
        logprobs = choice.logprobs
        assert logprobs.tokens == [served.text(sequence.ids[n]) for n in kept]
        for alternatives, token, logprob, n in zip(
            logprobs.top_logprobs, logprobs.tokens, logprobs.token_logprobs, kept, strict=True
        ):
            expected = {served.text(one): pytest.approx(value, abs=1e-5) for one, value in sequence.likeliest[n]}
            assert list(alternatives)[:2] == list(expected)
            assert alternatives == expected | {token: logprob}
            sizes.add(len(alternatives))
        parts = [one.logprobs for chunk in chunks for one in chunk.choices if one.index == choice.index]
        streamed = [alternatives for part in parts for alternatives in part.top_logprobs]
        assert streamed == [pytest.approx(alternatives, abs=1e-5) for alternatives in logprobs.top_logprobs]
        assert [offset for part in parts for offset in part.text_offset] == logprobs.text_offset
    assert sizes == {2, 3}  # some drawn tokens were not among the two likeliest


def test_improbable_alternatives_are_written_as_json_can(served: Served) -> None:
    """At such a temperature all probabilities but one round to 0, whose logarithm JSON has no number for."""
    [entries] = _chat_logprobs(served, max_tokens=4, top_logprobs=20, temperature=0.01)
    assert all(len(entry.top_logprobs) == 20 and entry.top_logprobs[-1].logprob == -9999 for entry in entries)
    answer = served.client().completions.create(
        model="base-tiny", prompt=PROMPT, temperature=0.01, max_tokens=4, logprobs=20
    )
    assert min(answer.choices[0].logprobs.top_logprobs[0].values()) == -9999


def test_there_are_no_more_alternatives_than_tokens(served: Served) -> None:
    size = served.engine.vocab_size
    [sequence] = served.draw(1, 1, SamplingParams(max_tokens=1, num_likeliest=size + 1))
    assert sorted(token for token, _ in sequence.likeliest[0]) == list(range(size))


@pytest.mark.parametrize("logprobs", [21, -1, True, "5", 10**30])
def test_a_completions_logprobs_are_bounded(served: Served, logprobs: Any) -> None:
    with pytest.raises(openai.BadRequestError) as found:
        served.client().completions.create(model="base-tiny", prompt=PROMPT, max_tokens=1, logprobs=logprobs)
    assert (found.value.param, found.value.code) == ("logprobs", "invalid_value")


def test_prompts_may_be_many_and_ids(served: Served) -> None:
    other = "User: use 3 8 5 make 43 Assistant:"
    create = served.client().completions.create
    texts = create(model="base-tiny", prompt=[PROMPT, other], seed=2, n=2, max_tokens=20)
    ids = [served.engine.tokenizer.encode(text) for text in (PROMPT, other)]
    assert [choice.index for choice in texts.choices] == [0, 1, 2, 3]
    assert texts.usage.prompt_tokens == sum(map(len, ids))
    same = create(model="base-tiny", prompt=ids, seed=2, n=2, max_tokens=20)
    assert [choice.text for choice in same.choices] == [choice.text for choice in texts.choices]
    params = SamplingParams(max_tokens=20, temperature=0.6, top_p=0.95)
    drawn = served.engine.sample([Prompt(ids=one, num_samples=2) for one in ids], params, seed=2)
    assert [choice.text for choice in texts.choices] == [rollout.text for group in drawn for rollout in group]
    assert create(model="base-tiny", prompt=ids[0], seed=2).usage.completion_tokens == 16  # the API's default


def test_a_seed_fixes_the_answer_and_its_absence_does_not(served: Served) -> None:
    def text(**asked: Any) -> str:
        answer = served.client().completions.create(
            model="base-tiny", prompt=PROMPT, temperature=2, top_p=1, max_tokens=30, **asked
        )
        return answer.choices[0].text  # type: ignore[no-any-return]

    assert text(seed=5) == text(seed=5)
    assert text(seed=-1) == text(seed=-1)
    assert text(seed=5) != text(seed=6)
    assert len({text() for _ in range(4)}) > 1


def test_greedy_ignores_the_seed(served: Served) -> None:
    create = served.client().chat.completions.create
    answers = [create(model="base-tiny", messages=QUESTION, temperature=0, seed=seed) for seed in (1, 2)]
    assert answers[0].choices[0].message == answers[1].choices[0].message


def test_stop_texts_end_an_answer_and_are_left_out(served: Served) -> None:
    create = served.client().completions.create
    whole = create(model="base-tiny", prompt=PROMPT, seed=1, max_tokens=40).choices[0]
    for stop in ("</think>", ["nowhere", "</think>"]):
        cut = create(model="base-tiny", prompt=PROMPT, seed=1, max_tokens=40, stop=stop)
        assert cut.choices[0].text == whole.text.partition("</think>")[0]
        assert cut.choices[0].finish_reason == "stop"
        assert cut.usage.completion_tokens < 40
    chat = served.client().chat.completions.create(model="base-tiny", messages=QUESTION, seed=1, stop="<answer>")
    assert (chat.choices[0].message.content, chat.choices[0].finish_reason) == ("", "stop")
    assert chat.choices[0].message.reasoning_content


def test_length_is_said_and_counted(served: Served) -> None:
    answer = served.client().chat.completions.create(
        model="base-tiny", messages=QUESTION, seed=1, max_completion_tokens=5
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 5
    assert answer.usage.completion_tokens_details.reasoning_tokens == 5


def test_an_answer_sent_back_leaves_its_thinking_out(served: Served) -> None:
    create = served.client().chat.completions.create
    first = create(model="base-tiny", messages=QUESTION, seed=1)
    turns = [*QUESTION, first.choices[0].message, QUESTION[0]]
    second = create(model="base-tiny", messages=turns, max_tokens=1)
    prompt = f"{PROMPT} {first.choices[0].message.content.strip()} <|end|> {PROMPT}"
    assert second.usage.prompt_tokens == len(served.engine.tokenizer.encode(prompt))


def test_parts_of_text_are_one_text(served: Served) -> None:
    parts = [{"type": "text", "text": "use 3 8 8"}, {"type": "text", "text": " make 61"}]
    create = served.client().chat.completions.create
    answer = create(model="base-tiny", messages=[{"role": "user", "content": parts}], seed=1)
    assert answer.choices[0].message == create(model="base-tiny", messages=QUESTION, seed=1).choices[0].message


def test_models_are_listed(served: Served) -> None:
    assert [model.id for model in served.client().models.list()] == ["base-tiny"]
    assert served.client().models.retrieve("base-tiny").id == "base-tiny"
    with pytest.raises(openai.NotFoundError) as found:
        served.client().models.retrieve("gpt/4")
    assert found.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"temperature": "0.5"}, "temperature", "invalid_value"),
        ({"temperature": -1e-9}, "temperature", "invalid_value"),
        ({"top_p": 1.5}, "top_p", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 10**30}, "n", "invalid_value"),
        ({"n": 17}, "n", None),  # more than the rows
        ({"n": True}, "n", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 5000}, "max_tokens", None),
        ({"max_tokens": 1020}, "messages", "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "3 " * 1024}]}, "messages", "context_length_exceeded"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content", "invalid_value"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages", None),  # the template refuses it
        ({"stop": ""}, "stop[0]", "invalid_value"),
        ({"stop": ["a"] * 5}, "stop", "invalid_value"),
        ({"seed": 1.5}, "seed", "invalid_value"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": -1, "logprobs": True}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": True, "logprobs": True}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 5}, "top_logprobs", "invalid_value"),  # without logprobs
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"extra_body": {"max_token": 3}}, "max_token", "unknown_parameter"),
    ],
)
def test_wrong_values_are_refused_by_name(served: Served, change: dict[str, Any], param: str, code: str | None) -> None:
    with pytest.raises(openai.BadRequestError) as found:
        served.client().chat.completions.create(**{"model": "base-tiny", "messages": QUESTION, **change})
    assert (found.value.param, found.value.code, found.value.type) == (param, code, "invalid_request_error")
    assert param.partition("[")[0] in found.value.message or "chat template refused" in found.value.message


def test_values_that_ask_for_nothing_are_accepted(served: Served) -> None:
    served.client().chat.completions.create(
        model="base-tiny", messages=QUESTION, max_tokens=1, frequency_penalty=0.0, presence_penalty=0, logit_bias={},
        response_format={"type": "text"}, tools=[], user="ada", metadata={"a": "b"}, stop=None, seed=None,
        extra_body={"top_k": 5, "min_p": 0.1},
    )  # fmt: skip


def test_extreme_settings_harm_nobody(served: Served) -> None:
    for extreme in ({"temperature": 1e-300}, {"top_p": 0}, {"top_p": 1e-300}, {"temperature": 2, "top_p": 1}):
        served.client().completions.create(model="base-tiny", prompt=PROMPT, max_tokens=8, **extreme)


def test_other_models_and_routes_are_not_found(served: Served) -> None:
    with pytest.raises(openai.NotFoundError) as found:
        served.client().chat.completions.create(model="gpt-4", messages=QUESTION)
    assert (found.value.param, found.value.code) == ("model", "model_not_found")
    status, body = served.request("/v1/embeddings", b"{}")
    assert (status, body["error"]["code"]) == (404, "unknown_url")
    status, body = served.request("/v1/chat/completions")
    assert (status, body["error"]["type"]) == (405, "invalid_request_error")


GARBAGE = [
    b"", b"nothing", b"\xff\xfe\x00", b"null", b"[]", b"7", b'"text"', b"{", b"{}", b'{"messages": null}',
    b"[" * 100_000, b'{"messages":' + b'{"a":' * 50_000, b'{"messages": ' + b"[" * 500 + b"]" * 500 + b"}",
    b'{"messages": {"role": "user"}}', b'{"messages": [null]}', b'{"messages": [[]]}', b'{"messages": "hello"}',
    b'{"messages": [{"role": "user"}]}', b'{"messages": [{"role": "user", "content": 5}]}',
    b'{"messages": [{"role": "user", "content": "\xff"}]}',
    b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    b'{"messages": [{"role": "user", "content": [{"type": "text"}]}]}',
    b'{"messages": [{"role": "user", "content": [1, 2]}]}',
    b'{"messages": [' + b"{}," * 300_000 + b"{}]}",
    b"{" + b",".join(b'"key%d": 1' % n for n in range(100_000)) + b"}",
    b'{"messages": [{"role": "user", "content": "1"}], "temperature": NaN}',
    b'{"messages": [{"role": "user", "content": "1"}], "temperature": Infinity}',
    b'{"messages": [{"role": "user", "content": "1"}], "temperature": 1e999}',
    b'{"messages": [{"role": "user", "content": "1"}], "n": 1e9}',
    b'{"messages": [{"role": "user", "content": "1"}], "n": ' + b"9" * 100_000 + b"}",
    b'{"messages": [{"role": "user", "content": "1"}], "seed": 1' + b"0" * 5_000 + b"}",
    b'{"messages": [{"role": "user", "content": "1"}], "stop": [[["a"]]]}',
    b'{"messages": [{"role": "user", "content": "1"}], "stop": "' + b"x" * 10_000 + b'"}',
    b'{"messages": [{"role": "user", "content": "1"}], "stream": "yes"}',
    b'{"messages": [{"role": "user", "content": "1"}], "stream_options": []}',
    b'{"messages": [{"role": "user", "content": "1"}], "tools": [{"type": "function"}]}',
    b'{"prompt": "1"}',
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(GARBAGE)))
def test_garbage_is_refused_in_the_apis_form(served: Served, number: int) -> None:
    status, body = served.request("/v1/chat/completions", GARBAGE[number])
    assert status == 400, body
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert len(body["error"]["message"]) < 500
    assert served.health()["status"] == "ok"


@pytest.mark.parametrize(
    "prompt",
    [b"5", b"null", b"[]", b'""', b"[[]]", b'[1, "a"]', b"[[1], []]", b"[-1]", b"[295]", b"[1e3]", b"[true]", b"[" * 99,
     b'{"a": 1}', b"[99999999999999999999999]", b'"' + b"3 " * 2000 + b'"', b'["a"' + b', "a"' * 200 + b"]"],
)  # fmt: skip
def test_garbage_prompts_are_refused(served: Served, prompt: bytes) -> None:
    status, body = served.request("/v1/completions", b'{"prompt": ' + prompt + b"}")
    assert status == 400, body
    assert served.request("/v1/completions", b'{"prompt": "3", "max_tokens": 1}')[0] == 200


def test_bodies_are_bounded(served: Served) -> None:
    status, body = served.request("/v1/chat/completions", b" " * (MAX_BODY + 1))
    assert (status, body["error"]["code"]) == (413, "request_too_large")


def test_what_is_not_http_harms_nobody(served: Served) -> None:
    for garbage in (
        b"\x00" * 1000,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99\r\n\r\n{",
    ):
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            connection.sendall(garbage)
    assert served.health()["status"] == "ok"


def test_web_pages_cannot_name_the_server_as_their_own(served: Served) -> None:
    status, body = served.request("/v1/models", Host="rebound.example:80")
    assert (status, body["error"]["code"]) == (403, "host_not_allowed")
    assert served.request("/v1/models", Host="localhost:8000")[0] == 200


def test_a_key_is_asked_for() -> None:
    with serving(api_key="sésame") as served:
        for key in ("none", "", "sesame"):
            status, body = served.request("/v1/models", Authorization=f"Bearer {key}")
            assert (status, body["error"]["code"]) == (401, "invalid_api_key")
        assert served.request("/v1/models")[0] == 401
        assert served.request("/nowhere")[0] == 401
        with pytest.raises(openai.AuthenticationError):
            served.client("wrong").chat.completions.create(model="base-tiny", messages=QUESTION)
        right = "Bearer sésame".encode().decode("latin-1")
        assert served.request("/v1/models", Authorization=right)[0] == 200
        assert served.health()["status"] == "ok"


def test_64_streams_at_once_are_all_whole(served: Served) -> None:
    """Four times as many as there are rows, with four seeds among them."""
    expected = [served.sample(seed, max_tokens=24)[0] for seed in range(4)]

    async def one(client: openai.AsyncOpenAI, seed: int) -> str:
        stream = await client.completions.create(
            model="base-tiny", prompt=PROMPT, seed=seed, max_tokens=24, stream=True
        )
        return "".join([chunk.choices[0].text async for chunk in stream])

    async def all_of_them() -> list[str]:
        url = f"http://127.0.0.1:{served.port}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
            return await asyncio.gather(*(one(client, n % 4) for n in range(64)))

    texts = asyncio.run(all_of_them())
    assert len(texts) == 64
    for n, text in enumerate(texts):
        assert text == expected[n % 4].text
    assert served.health() == {"status": "ok", "running": 0, "waiting": 0, "rows": 16}


def _open_stream(served: Served, n: int = 1) -> Any:
    return served.client().completions.create(model="base-tiny", prompt=PROMPT, max_tokens=1000, n=n, stream=True)


def test_a_stream_that_is_given_up_frees_its_rows_at_once(endless: Served) -> None:
    streams = [_open_stream(endless, n=2), _open_stream(endless), _open_stream(endless)]
    _until(lambda: endless.health()["running"] == 4)
    under_way = list(endless.model._owners)
    waiting = _open_stream(endless)
    _until(lambda: endless.health()["waiting"] == 1)
    waiting.close()
    _until(lambda: endless.health()["waiting"] == 0)
    streams[0].close()
    _until(lambda: endless.health()["running"] == 2)
    for stream in streams[1:]:
        next(iter(stream))
        stream.close()
    _until(lambda: endless.health()["running"] == 0)
    assert all(sequence.finish_reason is None and len(sequence.ids) < 900 for sequence in under_way)
    assert endless.model._unfinished == {}


def test_a_client_that_goes_away_while_it_waits_takes_its_request_along(endless: Served) -> None:
    body = json.dumps({"prompt": PROMPT, "max_tokens": 1000}).encode()
    with socket.create_connection(("127.0.0.1", endless.port)) as connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        _until(lambda: endless.health()["running"] == 1)
        [sequence] = list(endless.model._owners)
    _until(lambda: endless.health()["running"] == 0)
    assert sequence.finish_reason is None


def test_a_full_queue_refuses_and_recovers(endless: Served) -> None:
    streams = [_open_stream(endless, n=4), _open_stream(endless, n=2)]
    _until(lambda: endless.health()["running"] == 4)
    assert endless.health()["waiting"] == 2
    with pytest.raises(openai.RateLimitError) as found:
        _open_stream(endless)
    assert (found.value.code, found.value.response.headers["retry-after"]) == ("queue_full", "1")
    streams[0].close()
    _until(lambda: endless.health() == {"status": "ok", "running": 2, "waiting": 0, "rows": 4})
    third = _open_stream(endless, n=2)
    _until(lambda: endless.health()["running"] == 4)
    for stream in (streams[1], third):
        stream.close()
    _until(lambda: endless.health()["running"] == 0)


def test_a_failure_of_the_model_is_told_and_survived() -> None:
    with serving(endless=True, max_rows=2) as served:
        weight = served.model.engine.model.norm.weight
        stream = _open_stream(served)
        assert next(iter(stream)).choices[0].text is not None
        sound = weight.detach().clone()
        weight.data.fill_(float("nan"))
        with pytest.raises(openai.APIError, match="the model failed"):
            list(stream)
        body = json.dumps({"prompt": PROMPT, "max_tokens": 4}).encode()
        status, answer = served.request("/v1/completions", body)
        assert (status, answer["error"]["type"]) == (500, "server_error")
        weight.data.copy_(sound)
        assert served.request("/v1/completions", body)[0] == 200


def test_a_thread_that_ends_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(endless=True) as served:
        stream = _open_stream(served)

        def fault() -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(threading, "excepthook", lambda _: None)
        monkeypatch.setattr(served.model, "_step", fault)
        with pytest.raises(openai.APIError, match="the server has stopped"):
            list(stream)
        _until(lambda: not served.model.alive)
        assert served.model.failed


def test_a_prompt_that_opened_the_thinking_goes_on_in_it() -> None:
    engine = LocalEngine.open(find_model("base-tiny"))
    assert engine.tokenizer.chat_template is not None
    engine.tokenizer.chat_template += "{% if add_generation_prompt %} <think>{% endif %}"
    settings = ServeSettings(name="opened", port=0)
    listener, server = listen(settings), make_server(engine, settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}/v1", api_key="none")
        answer = client.chat.completions.create(model="opened", messages=QUESTION, temperature=0)
        assert answer.choices[0].message.reasoning_content
        assert "</think>" not in answer.choices[0].message.content
        cut = client.chat.completions.create(model="opened", messages=QUESTION, temperature=0, max_tokens=3)
        assert answer.choices[0].message.reasoning_content.startswith(cut.choices[0].message.reasoning_content)
        assert cut.choices[0].message.content == ""
    finally:
        server.should_exit = True
        thread.join(timeout=30)


def test_a_port_that_is_taken_is_refused_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(HoneError, match=r"port \d+: .*in use"):
        listen(ServeSettings(name="any", port=taken.getsockname()[1]))


def test_ctrl_c_ends_the_command_and_its_streams() -> None:
    command = [sys.executable, "-m", "hone.cli", "serve", "base-tiny", "--port", "0", "--host", "127.0.0.1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"base-tiny at (http://127\.0\.0\.1:\d+/v1): 64 sequences", line)
        assert found, line
        client = openai.OpenAI(base_url=found[1], api_key="none", max_retries=0)
        stream = client.completions.create(
            model="base-tiny", prompt=PROMPT, temperature=2, top_p=1, n=32, max_tokens=900, stream=True
        )
        next(iter(stream))
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
        assert (process.returncode, output.strip(), errors) == (0, "stopped", "")
    finally:
        process.kill()


def test_a_stream_of_tokens_is_a_completion_text(served: Served) -> None:
    """The pieces that the server sends are those of `CompletionText` over the sampler's tokens."""
    [rollout] = served.sample(11)
    text = CompletionText(served.engine.tokenizer, split=False)
    pieces = [text.push(int(token)).answer for token in rollout.completion_ids] + [text.end().answer]
    stream = served.client().completions.create(model="base-tiny", prompt=PROMPT, seed=11, max_tokens=40, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "".join(pieces) == rollout.text
