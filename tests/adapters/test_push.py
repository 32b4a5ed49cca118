"""push, against a stub of the Hub's HTTP API on this machine: which files arrive, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from lora_med.adapters.store.card import DataFacts, read_card
from lora_med.adapters.store.push import check_permitted, push
from lora_med.adapters.store.store import WEIGHTS
from lora_med.audit_trail import VARIABLE, read_trail
from lora_med.errors import IntegrityError, NotPermittedError, OutputError, SettingsError
from lora_med.models.base import load_base
from lora_med.signatures import SIGNATURES, new_keys, sign
from tests.adapters.conftest import put, train

TOKEN = "hf_" + "x" * 34


class Hub(ThreadingHTTPServer):
    """A Hub with one repository: it takes weights as LFS objects and the rest inline, and notes all that comes."""

    def __init__(self, *, private: bool = True, allowed: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.private, self.allowed = private, allowed
        self.created: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub  # type: ignore[assignment]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, value: object, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self) -> None:
        self.server.requests.append(f"GET {self.path}")
        self.answer({"id": "me/mine", "private": self.server.private, "sha": "0" * 40, "siblings": []})

    def do_PUT(self) -> None:
        self.server.requests.append(f"PUT {self.path}")
        self.server.objects[self.path.rpartition("/")[2]] = self.body()
        self.answer({})

    def do_POST(self) -> None:
        self.server.requests.append(f"POST {self.path}")
        content = self.body()
        hub = self.server
        if not hub.allowed:
            self.answer({"error": "no"}, 403)
        elif self.path == "/api/repos/create":
            hub.created = json.loads(content)
            self.answer({"url": f"{hub.address}/me/mine", "name": "me/mine", "id": "1"})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            paths = [one["path"] for one in json.loads(content)["files"]]
            modes = [{"path": path, "uploadMode": "lfs" if path == WEIGHTS else "regular"} for path in paths]
            self.answer({"files": [{**mode, "shouldIgnore": False} for mode in modes]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(content)["objects"]
            links = [{"upload": {"href": f"{hub.address}/lfs/{one['oid']}", "header": {}}} for one in wanted]
            objects = [{**one, "actions": link} for one, link in zip(wanted, links, strict=True)]
            self.answer({"transfer": "basic", "objects": objects})
        else:
            self.commit(content)

    def commit(self, content: bytes) -> None:
        for line in map(json.loads, content.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.objects[value["oid"]]
        self.answer(
            {"commitUrl": f"{self.server.address}/me/mine/commit/1", "commitOid": "1" * 40, "pullRequestUrl": None}
        )


@pytest.fixture
def hub(request: pytest.FixtureRequest) -> Iterator[Hub]:
    server = Hub(**getattr(request, "param", {}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()


def push_by_command(hub: Hub, store: Path, home: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """The real command in its own process, as the Hub's library reads its environment only once."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    command = [
        sys.executable,
        "-m",
        "lora_med",
        "adapters",
        "push",
        "abstracts",
        "me/mine",
        "--store",
        str(store),
        *more,
    ]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_exactly_the_four_files_arrive_in_a_private_repository(
    hub: Hub, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "trail.jsonl"))
    done = push_by_command(hub, store, tmp_path / "home", "--json")
    assert done.returncode == 0, done.stderr
    folder = store / "abstracts"
    assert hub.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(hub.files) == 4
    assert not any("/api/models/llama" in request for request in hub.requests)  # the base is not fetched to verify
    assert list(hub.objects) == [hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()]
    assert "private" in (hub.created.get("visibility"), "private" if hub.created.get("private") else None)
    assert json.loads(done.stdout)["private"] is True
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in path.read_bytes() for path in written)
    assert TOKEN not in done.stdout + done.stderr
    begun, pushed = read_trail(tmp_path / "trail.jsonl").lines
    assert (begun["state"], begun["adapter"], begun["to"]) == ("begun", "abstracts", "me/mine")
    assert (pushed["state"], pushed["commit"]) == ("done", "1" * 40)
    assert pushed["files"] == {name: hashlib.sha256(content).hexdigest() for name, content in hub.files.items()}


@pytest.fixture
def online(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """This process, which has read its environment already, may speak to the stub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.address)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


@pytest.mark.parametrize("hub", [{"private": False}], indirect=True)
def test_a_public_repository_of_that_name_gets_nothing(online: Hub, store: Path) -> None:
    with pytest.raises(OutputError, match="public"):
        push(store / "abstracts", "me/mine")
    assert online.files == {}


@pytest.mark.parametrize("hub", [{"allowed": False}], indirect=True)
def test_a_refusal_of_the_hub_is_not_permitted(
    online: Hub, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "trail.jsonl"))
    with pytest.raises(NotPermittedError, match="HTTP 403") as caught:
        push(store / "abstracts", "me/mine")
    assert "hf auth login" in (caught.value.fix or "")
    assert TOKEN not in str(caught.value)
    last = read_trail(tmp_path / "trail.jsonl").lines[-1]
    assert (last["state"], last["error"]) == ("failed", "E077-not-permitted")


def test_a_hub_that_does_not_answer_is_named(online: Hub, store: Path) -> None:
    online.server_close()
    with pytest.raises(OutputError, match="cannot be reached"):
        push(store / "abstracts", "me/mine")


def test_a_signature_goes_with_its_adapter_while_its_list_is_true(hub: Hub, store: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="the extra sign is not installed")
    folder = store / "abstracts"
    new_keys(tmp_path / "private.pem", tmp_path / "public.pem")
    sign(folder, tmp_path / "private.pem")
    done = push_by_command(hub, store, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert hub.files[SIGNATURES] == (folder / SIGNATURES).read_bytes()
    envelope = json.loads((folder / SIGNATURES).read_bytes())
    stale = base64.b64decode(envelope["payload"]).replace(b"README.md", b"READ.md")
    envelope["payload"] = base64.b64encode(stale).decode()
    (folder / SIGNATURES).write_text(json.dumps(envelope), encoding="utf-8")
    hub.files.clear()
    assert push_by_command(hub, store, tmp_path / "home").returncode == 76
    assert not hub.files


def test_a_repository_needs_a_name_that_the_hub_takes(online: Hub, store: Path) -> None:
    with pytest.raises(SettingsError, match="not a repository id"):
        push(store / "abstracts", "me/mi ne/x")


def test_credentialed_data_stays_here(llama: Path, tmp_path: Path) -> None:
    base = load_base(str(llama), quantization="none")
    facts = DataFacts("mimic", "PhysioNet", "credentialed")
    folder = put(train(base, store=tmp_path, steps=1), base, "notes", tmp_path, data=facts)
    for private in (True, False):
        with pytest.raises(NotPermittedError, match="credentialed") as caught:
            push(folder, "me/mine", private=private)
    assert caught.value.exit_code == 77


def test_registered_data_is_never_public(llama: Path, tmp_path: Path) -> None:
    base = load_base(str(llama), quantization="none")
    facts = DataFacts("x", "y", "registered")
    folder = put(train(base, store=tmp_path, steps=1), base, "mine", tmp_path, data=facts)
    with pytest.raises(NotPermittedError, match="registration"):
        push(folder, "me/mine", private=False)
    check_permitted(read_card(folder), private=True)


def test_offline_nothing_is_pushed(store: Path) -> None:
    with pytest.raises(SettingsError, match="offline"):
        push(store / "abstracts", "me/mine")


def test_a_changed_adapter_is_not_pushed(store: Path) -> None:
    (store / "abstracts" / "notes.csv").write_text("patient")
    with pytest.raises(IntegrityError, match="not intact"):
        push(store / "abstracts", "me/mine")
