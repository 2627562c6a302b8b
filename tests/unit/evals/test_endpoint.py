"""An endpoint as an evaluation's source: servers of this machine that answer, are busy, fail, lie, hang and drip."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hone import http
from hone.engine.local.engine import LocalEngine
from hone.evals import endpoint as module
from hone.evals.endpoint import Endpoint
from hone.evals.outputs import Decoding, Output, Wanted
from hone.models.folders import find_model
from hone.serve import ServeSettings, listen, make_server
from hone.types import HoneError, Message, Prompt, RunError, SamplingParams

Answer = tuple[int, dict[str, str], bytes]
KEY = "sk-0123456789abcdef"


def wanted(count: int) -> list[Wanted]:
    return [
        Wanted(problem_id=f"p/{n}", index=n % 3, messages=(Message(role="user", content=f"say {n}"),), seed=100 + n)
        for n in range(count)
    ]


def completion(content: Any = "hi", finish_reason: Any = "stop", usage: Any = None, **fields: Any) -> Answer:
    message = {"role": "assistant", "content": content, **fields}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    usage = {"completion_tokens": 7} if usage is None else usage
    return 200, {}, json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode()


def echo(body: dict[str, Any]) -> Answer:
    return completion(body["messages"][-1]["content"].upper())


class Server:
    """Answers chats by `answer`, which gets a request's body, and lists `models`."""

    def __init__(self, answer: Callable[[dict[str, Any]], Answer], models: Answer | None = None) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.in_flight = self.most_in_flight = 0
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.keys.append(self.headers["Authorization"])
                self.reply(models or (404, {}, b"no such page"))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.requests.append({"path": self.path, **body})
                    server.keys.append(self.headers["Authorization"])
                    server.in_flight += 1
                    server.most_in_flight = max(server.most_in_flight, server.in_flight)
                answered = answer(body)
                with lock:
                    server.in_flight -= 1
                self.reply(answered)

            def reply(self, answered: Answer) -> None:
                status, headers, payload = answered
                if not status:
                    return  # hangs up
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(payload))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(payload)

            def log_message(self, *_: object) -> None: ...

        class Quiet(ThreadingHTTPServer):
            request_queue_size = 64
            daemon_threads = True

            def handle_error(self, *_: object) -> None: ...  # a client that has given up

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def endpoint(self, **settings: Any) -> Endpoint:
        return endpoint(self.address, **settings)

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


def endpoint(address: str, **settings: Any) -> Endpoint:
    defaults = {"model": "r1", "concurrency": 4, "timeout": 5.0, "tries": 3, "backoff": 0.01}
    return Endpoint(address, **defaults | settings)


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def start(answer: Callable[[dict[str, Any]], Answer] = echo, models: Answer | None = None) -> Server:
        servers.append(Server(answer, models))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def ask(source: Endpoint, count: int = 1, **decoding: Any) -> list[Output]:
    return list(source.generate(wanted(count), Decoding(**decoding)))


def only(source: Endpoint) -> Output:
    (output,) = ask(source)
    return output


# --- what is asked, and what comes back ---


def test_every_output_comes_once_and_so_many_are_in_flight(serve: Serve) -> None:
    eight, late = threading.Barrier(8), threading.Event()

    def together(body: dict[str, Any]) -> Answer:
        if body["seed"] < 108:
            eight.wait(10)
        if body["seed"] == 120:
            late.set()
        assert body["seed"] != 100 or late.wait(10)
        return echo(body)

    server = serve(together)
    outputs = ask(server.endpoint(concurrency=8), 40)
    assert server.most_in_flight == 8
    assert outputs[0].problem_id != "p/0", "they come as they finish"
    found = {output.problem_id: output for output in outputs}
    assert len(outputs) == len(found) == 40
    assert found["p/5"] == Output(
        problem_id="p/5", index=2, prompt="say 5", completion="SAY 5", finish_reason="stop", num_tokens=7, seed=105
    )


def test_the_request_says_how_to_decode(serve: Serve) -> None:
    server = serve()
    ask(server.endpoint(api_key=f" {KEY}\n"), temperature=0.5, top_p=0.9, max_tokens=321)
    assert server.requests == [
        {
            "path": "/v1/chat/completions", "model": "r1", "messages": [{"role": "user", "content": "say 0"}],
            "temperature": 0.5, "top_p": 0.9, "max_tokens": 321, "seed": 100,
        }
    ]  # fmt: skip
    assert server.keys == [f"Bearer {KEY}"]


@pytest.mark.parametrize(
    ("message", "finish_reason", "text"),
    [
        ({"content": "2", "reasoning_content": "1 + 1"}, "stop", "<think>\n1 + 1\n</think>\n2"),
        ({"content": "2", "reasoning": "1 + 1"}, "stop", "<think>\n1 + 1\n</think>\n2"),
        ({"content": "2", "reasoning_content": None, "reasoning": None}, "length", "2"),
        ({"content": None, "reasoning_content": "1 + "}, "length", "<think>\n1 + "),
        ({"content": "", "reasoning_content": "1 + "}, "length", "<think>\n1 + "),
        ({"content": ""}, "stop", ""),
        ({"content": "a\ud83d\ude00b\ud800c"}, "stop", "a\U0001f600b\N{REPLACEMENT CHARACTER}c"),
    ],
)
def test_the_completion_is_put_together_as_the_model_wrote_it(
    serve: Serve, message: dict[str, Any], finish_reason: str, text: str
) -> None:
    output = only(serve(lambda body: completion(finish_reason=finish_reason, **message)).endpoint())
    assert (output.completion, output.finish_reason) == (text, finish_reason)
    assert output.completion.encode("utf-8").decode() == text


@pytest.mark.parametrize(("usage", "num_tokens"), [({}, None), ({"completion_tokens": 0}, 0)])
def test_tokens_that_nobody_counted_are_not_made_up(serve: Serve, usage: dict[str, int], num_tokens: int) -> None:
    answer = completion() if usage else (200, {}, completion()[2].replace(b'{"completion_tokens": 7}', b"null"))
    answer = completion(usage=usage) if usage else answer
    assert only(serve(lambda body: answer).endpoint()).num_tokens == num_tokens


def test_nothing_wanted_asks_for_nothing(serve: Serve) -> None:
    server = serve()
    assert ask(server.endpoint(), 0) == []
    assert server.requests == []


def test_no_more_outputs_wait_than_are_in_flight(serve: Serve) -> None:
    server = serve()
    outputs = server.endpoint(concurrency=5).generate(wanted(40), Decoding())
    next(outputs)
    time.sleep(0.3)  # the caller does something else
    assert len(server.requests) <= 6
    assert len(list(outputs)) == 39


@pytest.mark.parametrize(
    ("suffix", "path"),
    [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/api/openai", "/api/openai/chat/completions"),
    ],
)
def test_the_address_may_be_written_in_several_ways(serve: Serve, suffix: str, path: str) -> None:
    server = serve()
    only(endpoint(server.address + suffix))
    assert server.requests[0]["path"] == path


@pytest.mark.parametrize(
    "address",
    ["", "localhost:8000", "file:///etc/passwd", "http://", "http://a b", "http://h:99999/v1", "http://[::::]/v1",
     "http://a..b/v1", f"http://me:{KEY}@h/v1", f"http://h/v1?key={KEY}", f"http://h/v1#{KEY}"],
)  # fmt: skip
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(HoneError, match="is no address of an endpoint; write it as") as raised:
        endpoint(address)
    assert KEY not in str(raised.value)


def test_settings_that_mean_nothing_are_refused(serve: Serve) -> None:
    for settings in ({"concurrency": 0}, {"timeout": 0.0}, {"timeout": float("nan")}, {"tries": 0}):
        with pytest.raises(HoneError):
            endpoint("http://h", **settings)
    with pytest.raises(HoneError, match="the API key holds characters") as raised:
        endpoint("http://h", api_key=f"{KEY}\r\nX-Other: 1")
    assert KEY not in str(raised.value)
    with pytest.raises(HoneError, match="template = 'r1-zero' cannot be asked of it"):
        endpoint("http://h").generate(wanted(1), Decoding(template="r1-zero"))


# --- which model ---


def cards(*names: Any) -> Answer:
    return 200, {}, json.dumps({"object": "list", "data": [{"id": name} for name in names]}).encode()


def test_the_only_model_is_taken(serve: Serve) -> None:
    server = serve(models=cards("org/model"))
    source = server.endpoint(model=None, api_key=KEY)
    assert (source.model, source.model_hash) == ("org/model", "")
    assert server.keys == [f"Bearer {KEY}"]
    ask(source)
    assert server.requests[0]["model"] == "org/model"


@pytest.mark.parametrize(
    ("models", "words"),
    [
        (cards("a", "b\x1b[2J"), r"has 2 models \(a, b\[2J\): name the one"),
        (cards(*map(str, range(11))), r"has 11 models \(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, \.\.\.\): name the one"),
        (cards(), "has 0 models: name the one"),
        (cards(7), "JSON that lists no models"),
        ((200, {}, b"<html>"), "not JSON: <html>; start it, or correct the address"),
        ((500, {}, b"oops"), "status 500 Internal Server Error: oops"),
        (None, "refuses: status 404 Not Found: no such page; name a model that it has"),
    ],
)
def test_which_model_must_be_clear(serve: Serve, models: Answer, words: str) -> None:
    with pytest.raises(HoneError, match=words):
        serve(models=models).endpoint(model=None)


# --- trouble that passes, and trouble that stays ---

CALM = {"retry-after": "0"}
AGAIN: dict[str, tuple[Answer, str]] = {
    "500": ((500, {}, b"oops"), "status 500 Internal Server Error: oops"),
    "502": ((502, {}, b""), "status 502 Bad Gateway: it says nothing"),
    "503": ((503, CALM, b""), "status 503.*ask for fewer outputs at a time"),
    "429": ((429, {"Retry-After": "soon"}, b""), "status 429.*ask for fewer outputs at a time"),
    "hangs up": ((0, {}, b""), "the connection broke"),
    "not json": ((200, {}, b"<html>hello\x1b[2J</html>"), r"not JSON: <html>hello\[2J</html>"),
    "nothing": ((200, {}, b""), "not JSON"),
    "nested": ((200, {}, b"[" * 100_000), "not JSON"),
    "binary": ((200, {}, bytes(range(128, 256))), "not JSON"),
    "cut": ((200, {"Content-Length": "5000"}, completion()[2][:-3]), "not JSON"),
    "half": ((200, {}, completion()[2][:-3]), "not JSON"),
    "NaN": ((200, {}, completion()[2].replace(b"7", b"NaN")), "not JSON"),
    "an error": ((200, {}, b'{"error": {"message": "overloaded"}}'), "no chat completion: .*overloaded"),
    "a list": ((200, {}, b"[1]"), "no chat completion"),
    "no choice": ((200, {}, b'{"choices": []}'), "no chat completion"),
    "no message": ((200, {}, b'{"choices": [{"text": "hi", "finish_reason": "stop"}]}'), "no chat completion"),
    "null": (completion(None), "a message without content"),
    "a number": (completion(7), "content is int, not text"),
    "parts": (completion([{"type": "text", "text": "hi"}]), "content is list, not text"),
    "thoughts": (completion("a", reasoning_content={"a": 1}), "reasoning_content is dict, not text"),
    "filtered": (completion("a", "content_filter"), 'finish_reason "content_filter", so the output is not whole'),
    "unfinished": (completion("a", None), "finish_reason null"),
    "no count": (completion(usage={"completion_tokens": "7"}), "usage.completion_tokens"),
    "a share": (completion(usage={"completion_tokens": 7.5}), "usage.completion_tokens"),
    "true": (completion(usage={"completion_tokens": True}), "usage.completion_tokens"),
    "negative": (completion(usage={"completion_tokens": -1}), "usage.completion_tokens"),
    "too many": (completion(usage={"completion_tokens": 2**40}), "usage.completion_tokens"),
    "endless": (completion("x" * 300_000), "longer than 200000 bytes"),
}


@pytest.mark.parametrize("name", AGAIN)
def test_what_is_no_output_is_asked_for_again(serve: Serve, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 200_000)
    answer, words = AGAIN[name]
    answers = [answer, answer]
    server = serve(lambda body: answers.pop() if answers else echo(body))
    source = server.endpoint()
    assert only(source) == only(source)
    assert len(server.requests) == 4

    stubborn = serve(lambda body: answer)
    with pytest.raises(
        RunError, match=rf"endpoint http://127.*: problem p/0, output 0: .*3 tries; the last: .*{words}"
    ):
        only(stubborn.endpoint())
    assert len(stubborn.requests) == 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((400, {}, b'{"error": "too\nlong\x1b[31m"}'), r'"too long\[31m"}; where it is .* lower --max-tokens$'),
        ((401, {}, f"no such key: {KEY}".encode()), r"401 Unauthorized: no such key: \(the key\); give it a key"),
        ((403, {}, b""), "status 403 Forbidden: it says nothing; give it a key"),
        ((404, {}, b"no model r1"), "no model r1; name a model that it has, or correct the address"),
        ((413, {}, b"x" * 5000), f"{'x' * 200}$"),
        ((422, {}, (b"y" * 195 + KEY.encode())), f"{'y' * 195}" + r"\(the $"),
        ((302, {"Location": f"http://elsewhere/?{KEY}"}, b""), r"redirects to http://elsewhere/\?\(the key\): correct"),
    ],
)
def test_what_the_user_can_mend_is_said_at_once(serve: Serve, answer: Answer, words: str) -> None:
    server = serve(lambda body: answer)
    with pytest.raises(HoneError, match=words) as raised:
        ask(server.endpoint(api_key=KEY, concurrency=1), 3)
    message = str(raised.value)
    assert not isinstance(raised.value, RunError)
    assert message.startswith(f"endpoint {server.address}/v1 re")
    assert message.isprintable()
    assert "sk-" not in message
    assert len(server.requests) == 1


def test_what_has_finished_before_an_error_is_handed_over(serve: Serve) -> None:
    server = serve(lambda body: (400, {}, b"no") if body["seed"] == 103 else echo(body))
    found: list[Output] = []
    with pytest.raises(HoneError, match="status 400"):
        found.extend(server.endpoint(concurrency=1).generate(wanted(10), Decoding()))
    assert [output.problem_id for output in found] == ["p/0", "p/1", "p/2"]


def test_a_busy_server_is_given_the_time_that_it_asks_for(serve: Serve) -> None:
    times: list[float] = []

    def busy(body: dict[str, Any]) -> Answer:
        times.append(time.monotonic())
        in_a_second = {"Retry-After": formatdate(time.time() + 2, usegmt=True)}
        waits: list[dict[str, str]] = [{"Retry-After": "1"}, in_a_second]
        return (429, waits[len(times) - 1], b"slow down") if len(times) < 3 else echo(body)

    only(serve(busy).endpoint())
    assert times[1] - times[0] >= 1
    assert times[2] - times[1] >= 0.8  # of dates, seconds are the smallest part


def test_no_server_is_waited_for_longer_than_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    source = endpoint("http://h", backoff=1.0)
    assert source._pause(1, module._Again("busy", wait=86_400.0)) == module.LONGEST_WAIT
    assert 0.5 <= source._pause(1, module._Again("bad")) <= 1
    assert 4 <= source._pause(4, module._Again("bad")) <= 8
    assert source._pause(500, module._Again("bad")) <= module.LONGEST_WAIT


def test_a_server_that_is_busy_with_the_others_does_not_use_up_the_tries(serve: Serve) -> None:
    # Two at a time are let in, of eight: with three tries each, most would fail if being turned away were a failure.
    places = threading.Semaphore(2)

    def crowded(body: dict[str, Any]) -> Answer:
        if not places.acquire(blocking=False):
            return 429, {}, b"full"
        time.sleep(0.02)
        places.release()
        return echo(body)

    server = serve(crowded)
    assert len(ask(server.endpoint(concurrency=8, backoff=0.05), 60)) == 60
    assert len(server.requests) > 60


def test_a_server_that_is_not_there_is_said_to_be_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with pytest.raises(RunError, match=r"no output in 3 tries; the last: it cannot be reached: .*refused"):
        only(endpoint(address))
    with pytest.raises(HoneError, match=r"does not say which models it has: it cannot be reached: .*; start it"):
        endpoint(address, model=None)
    with pytest.raises(RunError, match="cannot be reached"):
        only(endpoint("http://no-such-machine.invalid/v1"))


def test_a_server_of_this_machine_is_asked_directly(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = serve()
    assert only(server.endpoint()).completion == "SAY 0"
    assert only(endpoint(server.address.replace("127.0.0.1", "localhost"))).completion == "SAY 0"


def test_a_server_with_tls_is_asked_if_its_certificate_is_trusted(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = serve()
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    source = endpoint(server.address.replace("http:", "https:"), tries=1)
    with pytest.raises(RunError, match=r"cannot be reached: .*certificate verify failed"):
        only(source)
    trusting = ssl.create_default_context(cafile=certificate)
    monkeypatch.setattr(http, "_trusted", lambda: trusting)
    assert only(source).completion == "SAY 0"


def test_the_key_follows_no_redirect(serve: Serve) -> None:
    elsewhere = serve()
    moved = serve(lambda body: (307, {"Location": f"{elsewhere.address}/v1/chat/completions"}, b""))
    with pytest.raises(HoneError, match="redirects to"):
        only(moved.endpoint(api_key=KEY))
    assert elsewhere.keys == []


# --- servers that hang ---

HANGS = {
    "says nothing": (b"", b""),
    "drips headers": (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
    "headers and then nothing": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b""),
    "drips its body": (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "),
    "drips chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "goes on and on": (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


class Hanging:
    """Takes requests and does not answer them: `first` is sent, then `drop` every 20 ms."""

    def __init__(self, first: bytes, drop: bytes) -> None:
        self.first, self.drop = first, drop
        self.num_requests = 0
        self.hung_up: list[socket.socket] = []
        self.done = threading.Event()
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def accept(self) -> None:
        while True:
            connection, _ = self.listening.accept()
            if self.done.is_set():
                return connection.close()
            self.num_requests += 1
            self.threads.append(threading.Thread(target=self.hang, args=(connection,)))
            self.threads[-1].start()

    def hang(self, connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            try:
                connection.sendall(self.first)
                connection.settimeout(0.02)
                while not self.done.is_set():
                    with suppress(TimeoutError):
                        if not connection.recv(65536):
                            break
                    connection.sendall(self.drop)
            except OSError:
                pass
            if not self.done.is_set():
                self.hung_up.append(connection)

    def close(self) -> None:
        self.done.set()
        socket.create_connection(self.listening.getsockname()).close()
        for thread in self.threads:
            thread.join()
        self.listening.close()


@contextmanager
def hanging(kind: str = "says nothing") -> Iterator[Hanging]:
    server = Hanging(*HANGS[kind])
    try:
        yield server
    finally:
        server.close()


@pytest.mark.parametrize("kind", HANGS)
def test_a_server_that_hangs_on_every_request_is_given_up(kind: str) -> None:
    with hanging(kind) as server:
        started = time.monotonic()
        with pytest.raises(RunError, match=r"it hangs: 4 requests in a row got no answer within 0\.3 s; see to the"):
            ask(endpoint(server.address, timeout=0.3, tries=50), 100)
        assert 0.3 <= time.monotonic() - started < 8  # fifty tries take 15 s
        assert server.num_requests < 10


def test_a_server_that_hangs_in_its_tls_greeting_is_given_up() -> None:
    with hanging() as server:
        address = server.address.replace("http:", "https:")
        with pytest.raises(RunError, match="it hangs: 4 requests"):
            ask(endpoint(address, timeout=0.3), 10)
    with hanging() as server:
        outputs = endpoint(server.address.replace("http:", "https:"), timeout=60).generate(wanted(10), Decoding())
        _interrupt_once(lambda: server.num_requests == 4)
        with pytest.raises(KeyboardInterrupt):
            next(outputs)
        _until(lambda: len(server.hung_up) == 4 and not requests_under_way())


def test_a_server_that_does_not_list_its_models_is_not_waited_for_again() -> None:
    with hanging() as server:
        with pytest.raises(HoneError, match=r"does not say which models it has: none within 0\.2 s"):
            endpoint(server.address, model=None, timeout=0.2)
        assert server.num_requests == 1


def test_one_request_that_hangs_is_asked_again(serve: Serve) -> None:
    slow = iter([True])

    def answer(body: dict[str, Any]) -> Answer:
        time.sleep(1.5 if body["seed"] == 101 and next(slow, False) else 0)
        return echo(body)

    server = serve(answer)
    assert len(ask(server.endpoint(timeout=1), 20)) == 20
    assert len(server.requests) == 21


def test_a_server_that_hangs_after_a_while_is_given_up(serve: Serve) -> None:
    def answer(body: dict[str, Any]) -> Answer:
        time.sleep(2 if body["seed"] >= 110 else 0)
        return echo(body)

    started = time.monotonic()
    found: list[Output] = []
    with pytest.raises(RunError, match="it hangs: 8 requests in a row"):
        found.extend(serve(answer).endpoint(timeout=0.7, tries=50).generate(wanted(100), Decoding()))
    assert len(found) == 10
    assert time.monotonic() - started < 10  # fifty tries take 35 s


def requests_under_way() -> int:
    return sum(thread.name.startswith("request ") for thread in threading.enumerate())


def test_whoever_stops_early_hangs_up_on_what_is_in_flight(serve: Serve) -> None:
    with hanging() as server:
        source = endpoint(server.address, timeout=60)
        outputs = source.generate(wanted(10), Decoding())
        _interrupt_once(lambda: server.num_requests == 4)
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            next(outputs)
        assert time.monotonic() - started < 8
        _until(lambda: len(server.hung_up) == 4 and not requests_under_way())
        assert server.num_requests == 4

    def one_at_once(body: dict[str, Any]) -> Answer:
        if body["seed"] > 100:
            time.sleep(4)
        return echo(body)

    outputs = serve(one_at_once).endpoint(timeout=60).generate(wanted(10), Decoding())
    next(outputs)
    outputs.close()  # type: ignore[attr-defined]
    started = time.monotonic()
    _until(lambda: not requests_under_way())
    assert time.monotonic() - started < 3


def _interrupt_once(reached: Callable[[], bool]) -> None:
    """Interrupt this test, as Ctrl-C does, once `reached` holds and it waits."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job has ignored

    def interrupt() -> None:
        _until(reached)
        time.sleep(0.1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt).start()


def _until(reached: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


# --- hone's own server ---


def test_greedy_outputs_are_those_of_the_engine_behind_it() -> None:
    folder = find_model("base-tiny")
    settings = ServeSettings(name="base-tiny", port=0, max_rows=4, max_waiting=1)
    listener = listen(settings)
    server = make_server(LocalEngine.open(folder), settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    questions = ["use 3 8 8 make 61", "use 1 2 3 make 6", "use 5 5 make 10", "use 7 9 make 2"] * 2
    asked = [
        Wanted(problem_id=f"p/{n}", index=0, messages=(Message(role="user", content=question),), seed=n)
        for n, question in enumerate(questions)
    ]
    try:
        _until(lambda: server.started, 30)
        # More requests at a time than the server takes: it says 429 to some of them.
        source = Endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}", concurrency=8)
        assert source.model == "base-tiny"
        outputs = list(source.generate(asked, Decoding(temperature=0.0, top_p=1.0, max_tokens=40)))
    finally:
        server.should_exit = True
        thread.join(timeout=30)
    engine = LocalEngine.open(folder)
    prompts = [Prompt(ids=engine.tokenizer.encode(engine.tokenizer.render(one.messages))) for one in asked]
    rollouts = engine.sample(prompts, SamplingParams(max_tokens=40, temperature=0.0), seed=0)
    found = {output.problem_id: output for output in outputs}
    assert len(found) == len(outputs) == len(asked)
    for one, (rollout,) in zip(asked, rollouts, strict=True):
        output = found[one.problem_id]
        # The server takes the thinking out, and with it the space around it.
        assert "".join(output.completion.split()) == "".join(rollout.text.split())
        assert (output.finish_reason, output.num_tokens) == (rollout.finish_reason, len(rollout.completion_ids))
    assert any("<think>" in output.completion for output in outputs)
