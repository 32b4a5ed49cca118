"""Clients that leave, stall, send half or nothing: the others are served on. And how signals end a server."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import signal
import socket
import time
from collections.abc import Callable

import httpx
import pytest

from tests.serving.conftest import Place
from tests.serving.http.conftest import KEYS
from tests.serving.http.server import Server, serving

PATH = "/v1/completions"
LONG = {"model": "a", "prompt": "Fever", "max_tokens": 240}


def post(server: Server, body: dict[str, object], *, length: int | None = None) -> bytes:
    """A POST as bytes; `length` is what it announces."""
    content = json.dumps(body).encode()
    key = f"Authorization: Bearer {server.key}\r\n" if server.key else ""
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\n{key}Content-Type: application/json\r\n"
    return f"{head}Content-Length: {length or len(content)}\r\n\r\n".encode() + content


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.mark.parametrize("streams", [True, False])
def test_a_request_stops_when_its_client_leaves(streams: bool, open_server: Server) -> None:
    before = open_server.metric("engine_cancelled_total")
    gone = open_server.metric("client_gone_total")
    for _ in range(4):
        with open_server.connect() as connection:
            connection.sendall(post(open_server, {**LONG, "n": 16, "stream": streams}))
            if streams:
                assert connection.recv(100).startswith(b"HTTP/1.1 200")
            else:
                wait_until(lambda: open_server.metric("requests_running") > 0)
    wait_until(lambda: open_server.metric("client_gone_total") == gone + 4)
    wait_until(lambda: open_server.metric("requests_running") == 0)
    assert open_server.metric("engine_cancelled_total") > before
    assert open_server.complete()["usage"]["completion_tokens"] == 8


def test_half_a_body_is_given_up_after_its_time(guarded_server: Server) -> None:
    with contextlib.ExitStack() as stack:
        halves = [stack.enter_context(guarded_server.connect()) for _ in range(20)]
        for connection in halves:
            connection.sendall(post(guarded_server, LONG, length=5000))
        assert guarded_server.complete()["usage"]["completion_tokens"] == 8
        for connection in halves:
            answer = b""
            while piece := connection.recv(10_000):
                answer += piece
            assert answer.startswith(b"HTTP/1.1 408")


def test_half_of_the_headers_is_given_up_after_its_time(guarded_server: Server) -> None:
    for sent in (b"", b"P", b"POST /v1/completions HTTP/1.1\r\nHost: local"):
        with guarded_server.connect() as connection:
            connection.sendall(sent)
            started = time.monotonic()
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(100) == b""
            assert time.monotonic() - started < 20


def test_headers_that_trickle_do_not_get_more_time(guarded_server: Server) -> None:
    with guarded_server.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        with pytest.raises(OSError):
            for number in range(100):
                connection.sendall(f"X-{number}: 1\r\n".encode())
                time.sleep(0.1)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 3\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nOrigin: http://[\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 200_000,
        b"GET /" + b"y" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_not_http_is_answered_with_400_or_closed(sent: bytes, open_server: Server) -> None:
    with open_server.connect() as connection, contextlib.suppress(OSError):
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(100)
        assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    assert open_server.complete()["usage"]["completion_tokens"] == 8


def test_200_idle_connections_do_not_hold_anyone_up(open_server: Server) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(open_server.connect())
        started = time.monotonic()
        assert open_server.complete()["usage"]["completion_tokens"] == 8
        assert time.monotonic() - started < 20


def test_more_connections_than_allowed_are_told_so(guarded_server: Server) -> None:
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(guarded_server.connect()) for _ in range(310)]
        connections[-1].settimeout(60)
        assert connections[-1].recv(100).startswith(b"HTTP/1.1 503")
    wait_until(lambda: httpx.get(f"{guarded_server.url}/health", trust_env=False).status_code == 200)


def test_a_client_that_reads_nothing_is_cut_off_and_others_are_served(guarded_server: Server) -> None:
    body = {**LONG, "logprobs": 20, "n": 2, "echo": True, "stream": True, "prompt": "x" * 10}
    stalled = []
    for _ in range(3):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", guarded_server.port))
        connection.sendall(post(guarded_server, body))
        stalled.append(connection)
    time.sleep(0.2)
    with guarded_server.client(KEYS[1]) as client:
        fine = client.post(PATH, json={**LONG, "max_tokens": 4})
        assert fine.status_code in (200, 429, 503)
    wait_until(lambda: guarded_server.metric("requests_running") == 0)
    assert guarded_server.complete()["usage"]["completion_tokens"] == 8
    for connection in stalled:
        connection.close()


def test_a_pipelined_connection_answers_in_order(open_server: Server) -> None:
    with open_server.connect() as connection:
        first = {**LONG, "max_tokens": 2}
        connection.sendall(post(open_server, first) + post(open_server, {**first, "model": "b"}))
        text = b""
        while text.count(b'"usage"') < 2:
            piece = connection.recv(10_000)
            assert piece, text
            text += piece
    assert text.index(b'"model":"a"') < text.index(b'"model":"b"')


def test_a_signal_lets_running_requests_finish(llama_place: Place) -> None:
    with serving(llama_place) as server, concurrent.futures.ThreadPoolExecutor(4) as pool:
        running = [pool.submit(server.complete, "a", max_tokens=240) for _ in range(4)]
        wait_until(lambda: server.metric("requests_running") == 4)
        assert server.stop() == 0
        for answer in running:
            assert answer.result()["usage"]["completion_tokens"] == 240
        with pytest.raises(httpx.ConnectError):
            server.get("/health")


def test_a_second_signal_breaks_requests_off(llama_place: Place) -> None:
    with serving(llama_place, "--max-batch", "1") as server, concurrent.futures.ThreadPoolExecutor(40) as pool:
        body = {**LONG, "temperature": 1.0}
        running = [pool.submit(server.post, PATH, {**body, "stream": number % 2 == 0}) for number in range(40)]
        wait_until(lambda: server.metric("requests_waiting") > 20)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(120) == 75
        statuses = [answer.result().status_code for answer in running if answer.exception() is None]
        assert 503 in statuses


@pytest.mark.slow
def test_while_a_server_drains_new_requests_are_told_to_go_elsewhere(llama_place: Place) -> None:
    with serving(llama_place, "--max-batch", "1") as server, concurrent.futures.ThreadPoolExecutor(9) as pool:
        with server.connect() as connection:
            running = [pool.submit(server.complete, "a", max_tokens=240) for _ in range(8)]
            connection.sendall(post(server, LONG)[:-10])  # it began before the signal, and ends after it
            wait_until(lambda: server.metric("requests_waiting") > 5)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            connection.sendall(post(server, LONG)[-10:])
            assert connection.recv(20).startswith((b"HTTP/1.1 200", b"HTTP/1.1 503"))
        assert server.process.wait(120) == 0
        assert all(answer.result()["usage"]["completion_tokens"] == 240 for answer in running)


@pytest.mark.slow
def test_a_killed_server_leaves_nothing_behind_that_stops_the_next_one(llama_place: Place) -> None:
    with serving(llama_place) as server:
        with server.connect() as connection:
            connection.sendall(post(server, {**LONG, "stream": True}))
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            server.process.kill()
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(100_000):
                    pass
        port = server.port
    with serving(llama_place, "--port", str(port)) as server:
        assert server.port == port
        assert server.complete()["usage"]["completion_tokens"] == 8
        assert server.stop() == 0
