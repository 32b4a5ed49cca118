"""Loading, replacing and unloading adapters of a running server: only with an admin key, only from the store."""

from __future__ import annotations

import concurrent.futures
import resource
import shutil
from pathlib import Path

import pytest

from lora_med.audit_trail import read_trail, trail_file
from tests.adapters.conftest import put, train
from tests.serving.conftest import Place
from tests.serving.http.conftest import ADMIN_KEY, KEYS
from tests.serving.http.server import Json, Server, error_of
from tests.serving.test_loading import FAILING


def admin(server: Server, method: str, name: str) -> tuple[int, Json]:
    with server.client(ADMIN_KEY) as client:
        answer = client.request(method, f"/admin/adapters/{name}")
    return answer.status_code, answer.json()


def text_of(server: Server, model: str) -> tuple[str, str]:
    answer = server.post("/v1/completions", {"model": model, "prompt": "Fever", "max_tokens": 12})
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"], answer.headers["x-lora-med-adapter-sha256"]


def test_an_adapter_of_the_store_is_loaded_asked_and_unloaded(guarded_server: Server) -> None:
    assert error_of(guarded_server.post("/v1/completions", {"model": "d", "prompt": "x"}))[0] == 404
    status, loaded = admin(guarded_server, "PUT", "d")
    assert (status, loaded["id"], loaded["replaced"]) == (200, "d", None)
    assert text_of(guarded_server, "d")[1] == loaded["sha256"]
    assert [one["id"] for one in guarded_server.get("/v1/models").json()["data"]][-1] == "d"
    assert admin(guarded_server, "DELETE", "d")[0] == 200
    assert error_of(guarded_server.post("/v1/completions", {"model": "d", "prompt": "x"}))[0] == 404
    assert admin(guarded_server, "DELETE", "d")[0] == 404
    path, _ = trail_file()
    assert path is not None
    lines = read_trail(path).lines
    (served,) = [line for line in lines if line.get("pid") == guarded_server.process.pid and line["action"] == "serve"]
    assert (served["adapters"], served["keys"]) == ([one["id"] for one in guarded_server.models[1:]], True)
    begun = [line for line in lines if line.get("pid") == served["pid"] and line.get("adapter") == "d"]
    assert [line["action"] for line in begun[-2:]] == ["load", "unload"]
    assert begun[-2]["sha256"] == loaded["sha256"]
    assert [line["state"] for line in lines if line["id"] == begun[-2]["id"]] == ["begun", "done"]


def test_an_adapter_is_replaced_under_its_name(guarded_server: Server, guarded_place: Place, tmp_path: Path) -> None:
    folder = guarded_place.store / "c"
    assert admin(guarded_server, "PUT", "c")[0] == 200
    first = text_of(guarded_server, "c")
    shutil.move(folder, tmp_path / "c")
    shutil.copytree(guarded_place.store / "d", folder)
    status, loaded = admin(guarded_server, "PUT", "c")
    assert (status, loaded["replaced"]) == (200, first[1])
    second = text_of(guarded_server, "c")
    assert second[1] == loaded["sha256"] != first[1]
    assert second[0] != first[0]
    shutil.rmtree(folder)
    shutil.move(tmp_path / "c", folder)
    assert admin(guarded_server, "PUT", "c")[0] == 200
    assert text_of(guarded_server, "c") == first
    assert admin(guarded_server, "DELETE", "c")[0] == 200


def test_an_admin_call_has_no_body_that_would_be_ignored(guarded_server: Server) -> None:
    with guarded_server.client(ADMIN_KEY) as client:
        for method in ("PUT", "DELETE"):
            answer = client.request(method, "/admin/adapters/a", json={"path": "/elsewhere"})
            assert error_of(answer) == (400, None, "invalid_body")
    assert text_of(guarded_server, "a")[1] == guarded_server.sha256_of("a")


def test_a_torn_adapter_is_refused_and_the_loaded_one_stays(guarded_server: Server, guarded_place: Place) -> None:
    before = text_of(guarded_server, "b")
    weights = guarded_place.store / "b" / "adapter_model.safetensors"
    content = weights.read_bytes()
    try:
        for damaged in (content[: len(content) // 2], content[:-1] + bytes([content[-1] ^ 1]), b""):
            weights.write_bytes(damaged)
            status, answer = admin(guarded_server, "PUT", "b")
            assert (status, answer["error"]["code"]) == (409, "integrity")
            assert str(guarded_place.store) not in answer["error"]["message"]
            assert text_of(guarded_server, "b") == before
    finally:
        weights.write_bytes(content)
    assert admin(guarded_server, "PUT", "b")[0] == 200
    assert text_of(guarded_server, "b") == before


def test_a_disk_that_fails_while_an_adapter_is_read_changes_nothing(
    guarded_server: Server, guarded_place: Place, tmp_path: Path
) -> None:
    listed = guarded_server.get("/v1/models").json()
    before = text_of(guarded_server, "b")
    for name in ("adapter_model.safetensors", "card.json"):
        file = guarded_place.store / "b" / name
        kept = shutil.move(file, tmp_path / name)
        try:
            file.symlink_to(FAILING)
            status, answer = admin(guarded_server, "PUT", "b")
            assert (status, answer["error"]["code"]) == (500, "disk")
            assert str(guarded_place.store) not in answer["error"]["message"]
            assert guarded_server.get("/v1/models").json() == listed
            assert text_of(guarded_server, "b") == before
        finally:
            file.unlink()
            shutil.move(kept, file)
    assert admin(guarded_server, "PUT", "b")[0] == 200
    assert text_of(guarded_server, "b") == before


def test_a_full_disk_stops_neither_loading_nor_answers(guarded_server: Server) -> None:
    """Meanwhile every write into a file fails in the server."""
    first = text_of(guarded_server, "a")
    before = resource.prlimit(guarded_server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(guarded_server.process.pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        status, loaded = admin(guarded_server, "PUT", "d")
        assert (status, loaded["id"]) == (200, "d")
        assert text_of(guarded_server, "d") != first == text_of(guarded_server, "a")
    finally:
        resource.prlimit(guarded_server.process.pid, resource.RLIMIT_FSIZE, before)
    assert admin(guarded_server, "DELETE", "d")[0] == 200


@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("nowhere", {404}),
        ("..", {401, 404}),  # httpx makes it /, where this key opens nothing
        ("%2e%2e%2fb", {404, 400}),
        ("..%2f..%2fetc%2fpasswd", {404, 400}),
        ("%2fetc%2fpasswd", {404, 400}),
        (".hidden", {400}),
        ("UPPER", {400}),
        ("base", {404, 409}),
        ("b%00", {400, 404}),
    ],
)
def test_a_name_is_a_name_in_the_store_and_no_path(name: str, statuses: set[int], guarded_server: Server) -> None:
    for method in ("PUT", "DELETE"):
        assert admin(guarded_server, method, name)[0] in statuses


def test_an_adapter_of_another_base_is_refused(guarded_server: Server, guarded_place: Place, tmp_path: Path) -> None:
    from lora_med.models.base import load_base
    from tests.tiny import make_tiny

    twin = load_base(str(make_tiny("llama", tmp_path / "twin", seed=7)), quantization="none")
    put(train(twin, store=guarded_place.store), twin, "foreign", guarded_place.store)
    status, answer = admin(guarded_server, "PUT", "foreign")
    assert (status, answer["error"]["code"]) == (409, "integrity")
    assert "another base" in answer["error"]["message"]


def test_without_an_admin_key_there_is_no_such_door(open_server: Server) -> None:
    with open_server.client(ADMIN_KEY) as client:
        for method in ("PUT", "DELETE", "GET"):
            assert client.request(method, "/admin/adapters/a").status_code == 404


def test_requests_run_on_through_replacements_and_each_names_its_weights(
    guarded_server: Server, guarded_place: Place, tmp_path: Path
) -> None:
    shutil.copytree(guarded_place.store / "c", guarded_place.store / "swapped")
    assert admin(guarded_server, "PUT", "swapped")[0] == 200
    texts = {}
    for name in ("c", "d"):
        assert admin(guarded_server, "PUT", name)[0] == 200
        text, sha256 = text_of(guarded_server, name)
        texts[sha256] = text
    seen: list[tuple[str, str]] = []

    def ask() -> None:
        with guarded_server.client(KEYS[1]) as client:
            for _ in range(15):
                body = {"model": "swapped", "prompt": "Fever", "max_tokens": 12}
                answer = client.post("/v1/completions", json=body)
                if answer.status_code == 200:
                    sha256 = answer.headers["x-lora-med-adapter-sha256"]
                    seen.append((sha256, answer.json()["choices"][0]["text"]))
                else:
                    assert answer.status_code in (429, 503), answer.text

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        for number in range(6):
            shutil.rmtree(guarded_place.store / "swapped")
            shutil.copytree(guarded_place.store / ("d", "c")[number % 2], guarded_place.store / "swapped")
            assert admin(guarded_server, "PUT", "swapped")[0] == 200
        for one in asking:
            one.result()
    assert len(seen) > 5
    assert {sha256 for sha256, _ in seen} <= set(texts)
    assert all(text == texts[sha256] for sha256, text in seen)
    for name in ("swapped", "c", "d"):
        assert admin(guarded_server, "DELETE", name)[0] == 200
