"""Answers that are too slow, too large or no answers at all, from a socket that does as it likes."""

import gzip
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from pydantic import SecretStr

from evalai_api import http
from evalai_api.budget import NoBudget
from evalai_api.client import EvalAIClient
from evalai_api.http import RetryPolicy, Timeouts
from evaluation.errors import EvaluationError, InvalidConfiguration, RequestRefused, ServiceUnavailable

ONCE = RetryPolicy(attempts=1, total_seconds=5)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server that reads a request and then lets `answer` do with the connection what it wants."""
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            with suppress(OSError), listener.accept()[0] as connection:
                connection.recv(65536)
                answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        ended.set()
        with suppress(OSError), socket.create_connection(listener.getsockname(), timeout=1):
            pass
    thread.join(5)


def client(url: str, timeouts: Timeouts | None = None) -> EvalAIClient:
    return EvalAIClient(url, SecretStr("host-token"), NoBudget(), timeouts=timeouts, retries=ONCE)


def drip(*, in_head: bool) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(HEAD if in_head else HEAD + b"Content-Length: 100000\r\n\r\n")
        for _ in range(1000):  # a byte now and then: a timeout for each byte never fires
            connection.sendall(b"X" if in_head else b" ")
            time.sleep(0.02)

    return answer


@pytest.mark.parametrize("in_head", [True, False])
def test_an_answer_that_drips_has_a_total_time(in_head: bool) -> None:
    began = time.monotonic()

    with answering(drip(in_head=in_head)) as url, pytest.raises(ServiceUnavailable, match="did not answer in time"):
        client(url, Timeouts(connect=5, read=5, total=0.5)).status(1)

    assert time.monotonic() - began < 15  # of the 20 s that it would take


def endless(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Connection: close\r\n\r\n")
    with suppress(OSError):
        while True:
            connection.sendall(b'["' + b"x" * 65536)


def test_an_answer_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ANSWER_LIMIT_BYTES", 1_000_000)

    with answering(endless) as url, pytest.raises(RequestRefused, match=r"too large.*more than 1000000 bytes"):
        client(url).submissions(1)


def encoded(encoding: bytes, body: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        head = HEAD + b"Content-Encoding: %s\r\nContent-Length: %d\r\n" % (encoding, len(body))
        with suppress(OSError):
            connection.sendall(head + b"Connection: close\r\n\r\n" + body)

    return answer


def test_a_compressed_answer_is_read() -> None:
    with answering(encoded(b"gzip", gzip.compress(b"[]"))) as url:
        assert list(client(url).submissions(1)) == []


@pytest.mark.parametrize(
    ("encoding", "body", "error"),
    [
        (b"gzip", gzip.compress(b'["' + b"x" * 20_000_000), RequestRefused),
        (b"gzip, gzip", gzip.compress(gzip.compress(b'["' + b"x" * 20_000_000)), ServiceUnavailable),
        (b"gzip", b"no gzip", ServiceUnavailable),
        (b"br", b"x", ServiceUnavailable),
    ],
)
def test_a_compressed_answer_is_bounded_by_what_comes_out(
    monkeypatch: pytest.MonkeyPatch, encoding: bytes, body: bytes, error: type[EvaluationError]
) -> None:
    monkeypatch.setattr(http, "ANSWER_LIMIT_BYTES", 1_000_000)
    tracemalloc.start()
    try:
        with answering(encoded(encoding, body)) as url, pytest.raises(error):
            client(url).submissions(1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"[" * 100_000, ServiceUnavailable),  # deeper than Python's parser goes
        (b'{"status": "\xff"}', ServiceUnavailable),
        (b"null", RequestRefused),
        (b'{"ok": true}', RequestRefused),  # a gateway's own JSON
    ],
)
def test_what_is_no_answer_of_evalai_is_an_error_of_ours(body: bytes, error: type[EvaluationError]) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)

    with answering(answer) as url, pytest.raises(error):
        client(url).submissions(1)


def test_a_401_keeps_its_reason() -> None:
    body = b'{"detail": "Given token not valid for any token type", "code": "token_not_valid", "messages": '
    body += b'[{"token_class": "RefreshToken", "token_type": "refresh", "message": "Token is blacklisted"}]}'

    def answer(connection: socket.socket) -> None:
        head = HEAD.replace(b"200 OK", b"401 Unauthorized")
        connection.sendall(head + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)

    with answering(answer) as url, pytest.raises(InvalidConfiguration, match="Token is blacklisted"):
        client(url).status(1)
