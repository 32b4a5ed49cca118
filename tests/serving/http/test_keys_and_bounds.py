"""Who may ask a running server, and how much: keys, hosts, bodies, queues, and adapters of credentialed data."""

from __future__ import annotations

import concurrent.futures
import json
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.serving.http.conftest import ADMIN_KEY, KEYS
from tests.serving.http.server import Server, error_of

BODY = {"model": "a", "prompt": "Fever", "max_tokens": 4}
LONG = {"model": "a", "prompt": "Fever", "max_tokens": 240}
PATH = "/v1/completions"


def headers(key: str = KEYS[0], **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", "content-type": "application/json", **more}


def raw(server: Server, method: str = "POST", path: str = PATH, **options: object) -> httpx.Response:
    with httpx.Client(base_url=server.url, timeout=180, trust_env=False) as client:
        return client.request(method, path, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "key", [None, "", "Bearer wrong-key-of-sixteen-letters", f"Basic {KEYS[0]}", f"Bearer {KEYS[0]}x"]
)
@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/v1/models/a", "/nowhere"])
def test_without_its_key_a_server_says_nothing(key: str | None, path: str, guarded_server: Server) -> None:
    answer = raw(guarded_server, "GET", path, headers={} if key is None else {"authorization": key})
    assert error_of(answer) == (401, None, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_an_admin_key_asks_no_model_and_an_api_key_changes_none(guarded_server: Server) -> None:
    assert error_of(raw(guarded_server, json=BODY, headers=headers(ADMIN_KEY)))[0] == 401
    assert error_of(raw(guarded_server, "PUT", "/admin/adapters/c", headers=headers()))[0] == 401
    assert error_of(raw(guarded_server, "DELETE", "/admin/adapters/a", headers={}))[0] == 401


def test_any_of_the_keys_opens(guarded_server: Server) -> None:
    for key in KEYS:
        assert raw(guarded_server, json=BODY, headers=headers(key)).status_code == 200


def test_health_needs_no_key(guarded_server: Server) -> None:
    assert raw(guarded_server, "GET", "/health").json() == {"status": "ok"}
    assert raw(guarded_server, "GET", "/ready").json() == {"status": "ready"}


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"host": "evil.example"}, 403, "invalid_host"),
        ({"origin": "http://evil.example"}, 403, "invalid_origin"),
        ({"origin": "null"}, 403, "invalid_origin"),
        ({"content-type": "text/plain"}, 415, "unsupported_media_type"),
        ({"content-type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
        ({"content-encoding": "gzip"}, 415, "unsupported_media_type"),
    ],
)
def test_a_page_elsewhere_cannot_ask(changed: dict[str, str], status: int, code: str, guarded_server: Server) -> None:
    answer = raw(guarded_server, content=json.dumps(BODY), headers=headers(**changed))
    assert error_of(answer)[::2] == (status, code)
    assert "access-control-allow-origin" not in answer.headers
    preflight = raw(guarded_server, "OPTIONS", headers={"origin": "http://evil.example"})
    assert preflight.status_code == 403


def test_a_large_body_is_refused_whether_its_size_is_announced_or_not(guarded_server: Server) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(50):
            yield b" " * 1000

    for content in (b" " * 17_000, b" " * 3_000_000, pieces()):
        answer = raw(guarded_server, content=content, headers=headers())
        assert error_of(answer) == (413, None, "body_too_large")
        assert answer.headers["connection"] == "close"
    fits = json.dumps(BODY).encode()
    assert raw(guarded_server, content=fits + b" " * (16_000 - len(fits)), headers=headers()).status_code == 200


def test_an_announced_size_alone_is_enough_to_refuse(guarded_server: Server) -> None:
    with guarded_server.connect() as connection:
        connection.sendall(
            f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEYS[0]}\r\n"
            "Content-Type: application/json\r\nContent-Length: 10000000000\r\n\r\n".encode()
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_one_key_has_its_bound_and_another_key_its_own(guarded_server: Server) -> None:
    def ask(key: str) -> httpx.Response:
        return raw(guarded_server, json=LONG, headers=headers(key))

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(ask, KEYS[0]) for _ in range(10)]
        time.sleep(0.05)
        other = pool.submit(ask, KEYS[1]).result()
        found = [answer.result() for answer in answers]
    refused = [answer for answer in found if answer.status_code != 200]
    assert 0 < len(refused) < 10
    for answer in refused:
        assert error_of(answer)[::2] in ((429, "rate_limit_exceeded"), (503, "overloaded"))
        assert int(answer.headers["retry-after"]) >= 1
    assert any(answer.status_code == 429 for answer in refused)
    assert other.status_code in (200, 503)
    assert raw(guarded_server, json=BODY, headers=headers()).status_code == 200


def test_a_request_for_more_answers_than_a_key_may_have_is_refused(guarded_server: Server) -> None:
    answer = raw(guarded_server, json={**BODY, "prompt": ["a", "b", "c"]}, headers=headers())
    assert error_of(answer) == (400, "prompt", "invalid_value")


def test_an_adapter_of_credentialed_data_answers_behind_its_key(guarded_server: Server) -> None:
    answer = raw(guarded_server, json={**BODY, "model": "secret"}, headers=headers())
    assert answer.status_code == 200
    listed = {one["id"]: one for one in guarded_server.get("/v1/models").json()["data"]}
    assert listed["secret"]["access"] == "credentialed"
    assert any("permission: Dr. Weber allows it" in line for line in guarded_server.log)


def test_an_adapter_that_gives_no_finite_numbers_is_taken_out_of_service(guarded_server: Server) -> None:
    with httpx.Client(base_url=guarded_server.url, trust_env=False) as client:
        loaded = client.put("/admin/adapters/overflow", headers=headers(ADMIN_KEY))
    assert loaded.status_code == 200
    first = raw(guarded_server, json={**BODY, "model": "overflow"}, headers=headers())
    assert error_of(first) == (500, None, "not_finite")
    assert first.headers["x-request-id"] in first.json()["error"]["message"]
    for streams in (False, True):
        again = raw(guarded_server, json={**BODY, "model": "overflow", "stream": streams}, headers=headers())
        assert error_of(again) == (503, "model", "out_of_service")
    assert raw(guarded_server, json=BODY, headers=headers()).status_code == 200
    page = raw(guarded_server, "GET", "/metrics", headers=headers()).text
    assert 'lora_med_adapter_out_of_service{adapter="overflow"' in page


def test_no_text_and_no_key_is_in_the_log(guarded_server: Server) -> None:
    for path in (PATH, "/v1/PATIENT-Meier", f"{PATH}?q=PATIENT-Meier"):
        raw(guarded_server, path=path, json={**BODY, "prompt": "PATIENT-Meier"}, headers=headers())
    for fields in ({"PATIENT-Meier": 1}, {"model": "PATIENT-Meier"}, {"max_tokens": "PATIENT-Meier"}):
        raw(guarded_server, json={**BODY, **fields}, headers=headers())
    raw(guarded_server, content=b'{"PATIENT-Meier', headers=headers())
    raw(guarded_server, "GET", "/v1/models", headers={"authorization": "Bearer PATIENT-Meier"})
    raw(guarded_server, "PATIENT", headers=headers())
    time.sleep(0.3)
    log = "".join(guarded_server.log)
    assert "/v1/completions 200 a, 6 + 4 tokens" in log
    assert "Meier" not in log and not any(key in log for key in (*KEYS, ADMIN_KEY))
    assert "PATIENT" not in log
    page = raw(guarded_server, "GET", "/metrics", headers=headers()).text
    assert "Meier" not in page
