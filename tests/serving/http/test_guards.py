"""Hosts, origins, keys, fingerprints and the metrics page, each without a server."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lora_med.adapters.store.card import BaseIdentity, Card
from lora_med.errors import DataError, InputMissingError, IntegrityError, LoraMedError, NotPermittedError, SettingsError
from lora_med.host_headers import is_loopback
from lora_med.models.fingerprint import Fingerprint
from lora_med.serving.answer_identity import Response, read_response, sources_of, system_fingerprint
from lora_med.serving.requests import Loaded, Statistics
from lora_med.serving.served_models import Audience, last_evaluation, one_quantization
from lora_med.serving.web.allowed_hosts import AllowedHosts, check_names
from lora_med.serving.web.api_keys import ApiKeys, read_keys
from lora_med.serving.web.error_bodies import ApiError
from lora_med.serving.web.server_metrics import ServerMetrics
from tests.adapters.conftest import OPEN

BASE = Fingerprint("1" * 64, "2" * 64, "3" * 64)
FILES = {"adapter_model.safetensors": "4" * 64, "adapter_config.json": "5" * 64, "README.md": "6" * 64}
CARD = Card(
    "a", "", BaseIdentity("micro", None, BASE, "4bit", "bfloat16"), {}, "text", OPEN, {}, {}, {}, "2026-05-03", FILES
)


@pytest.mark.parametrize(
    ("address", "host", "admitted"),
    [
        ("127.0.0.1", "127.0.0.1:8000", True),
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "LOCALHOST:1", True),
        ("127.0.0.1", "localhost.", True),
        ("127.0.0.1", "[::1]:8000", True),
        ("127.0.0.1", "127.0.0.2", True),
        ("::1", "localhost:8000", True),
        ("localhost", "127.0.0.1", True),
        ("127.0.0.1", "models.hospital.example", True),
        ("127.0.0.1", "evil.example", False),
        ("127.0.0.1", "evil.example:8000", False),
        ("127.0.0.1", "localhost.evil.example", False),
        ("127.0.0.1", "127.0.0.1.evil.example", False),
        ("127.0.0.1", "10.0.0.5", False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", "localhost@evil.example", False),
        ("127.0.0.1", "evil.example#localhost", False),
        ("127.0.0.1", "localhost:99999", False),
        ("127.0.0.1", "2130706433", False),
        ("10.0.0.5", "10.0.0.5:8000", True),
        ("10.0.0.5", "10.0.0.6:8000", False),
        ("10.0.0.5", "localhost", False),
        ("0.0.0.0", "10.0.0.5", True),
        ("0.0.0.0", "localhost", True),
        ("0.0.0.0", "evil.example", False),
        ("::", "[fe80::1]:8000", True),
        ("ward3", "ward3:8000", True),
        ("ward3", "evil.example", False),
    ],
)
def test_a_host_is_this_server_or_is_refused(address: str, host: str, admitted: bool) -> None:
    hosts = AllowedHosts(address, ("models.hospital.example",))
    if admitted:
        hosts.check([host], [])
    else:
        with pytest.raises(ApiError) as caught:
            hosts.check([host], [])
        assert caught.value.status == 403


@pytest.mark.parametrize(
    ("origin", "admitted"),
    [
        ("http://localhost:8000", True),
        ("https://localhost:8000", True),
        ("http://localhost:3000", False),
        ("http://localhost", False),
        ("http://evil.example", False),
        ("null", False),
        ("", False),
        ("http://[", False),
        ("http://[x]:99999999", False),
        ("http://a\u2100b", False),
    ],
)
def test_an_origin_is_the_host_itself_or_is_refused(origin: str, admitted: bool) -> None:
    hosts = AllowedHosts("127.0.0.1")
    if admitted:
        hosts.check(["localhost:8000"], [origin])
    else:
        with pytest.raises(ApiError, match="is not this server"):
            hosts.check(["localhost:8000"], [origin])


def test_a_request_names_its_host_once() -> None:
    for headers in ([], ["localhost", "localhost"]):
        with pytest.raises(ApiError) as caught:
            AllowedHosts("127.0.0.1").check(headers, [])
        assert caught.value.status == 400


def test_only_this_machine_reaches_a_loopback_address() -> None:
    assert [is_loopback(address) for address in ("127.0.0.1", "127.8.8.8", "::1", "localhost", "Localhost.")] == [
        True
    ] * 5
    assert [is_loopback(address) for address in ("0.0.0.0", "::", "10.0.0.5", "ward3", "")] == [False] * 5


def test_names_of_hosts_are_names_alone() -> None:
    assert check_names(["Models.Hospital.example"], "--allow-host") == ("models.hospital.example",)
    for wrong in ("https://a.example", "a.example:80", "*.example", "a.example/x", "", "a b"):
        with pytest.raises(SettingsError, match="not the name of a host"):
            check_names([wrong], "--allow-host")


def keys_in(path: Path, content: bytes, mode: int = 0o600) -> ApiKeys:
    path.write_bytes(content)
    path.chmod(mode)
    return read_keys(path, "--api-key-file")


def test_a_key_is_recognized_and_never_held(tmp_path: Path) -> None:
    keys = keys_in(tmp_path / "keys", b"# ours\n\nfirst-key-of-sixteen\nother-key-of-sixteen\r\n")
    first, other = keys.identity("Bearer first-key-of-sixteen"), keys.identity("bearer  other-key-of-sixteen ")
    assert first and other and first != other
    for wrong in (
        None,
        "",
        "first-key-of-sixteen",
        "Bearer",
        "Bearer ",
        "Bearer first-key",
        "Basic first-key-of-sixteen",
    ):
        assert keys.identity(wrong) is None
    assert "first-key" not in repr(keys) and "first-key" not in "".join(keys.digests)
    assert ApiKeys().identity(None) == ""


@pytest.mark.parametrize(
    ("content", "mode", "error", "reason"),
    [
        (b"first-key-of-sixteen\n", 0o640, NotPermittedError, "0640"),
        (b"first-key-of-sixteen\n", 0o604, NotPermittedError, "0604"),
        (b"# none\n\n", 0o600, SettingsError, "no key"),
        (b"", 0o600, SettingsError, "no key"),
        (b"short\n", 0o600, SettingsError, "5 characters"),
        (b"x" * 600, 0o600, SettingsError, "600 characters"),
        (b"a key with blanks in it\n", 0o600, SettingsError, "without blanks"),
        (b"umlaut-\xc3\xa4-of-sixteen-letters\n", 0o600, SettingsError, "printable ASCII"),
        (b"first-key-of-sixteen\n" * 2, 0o600, SettingsError, "twice"),
    ],
)
def test_a_file_of_keys_that_protects_nothing_is_refused(
    content: bytes, mode: int, error: type[LoraMedError], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=reason) as caught:
        keys_in(tmp_path / "keys", content, mode)
    assert "first-key" not in str(caught.value) and "short" not in str(caught.value)


def test_a_missing_file_of_keys_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(InputMissingError):
            read_keys(path, "--api-key-file")


def test_a_fingerprint_changes_with_all_that_changes_an_answer_and_with_nothing_else() -> None:
    def of(card: Card | None, base: Fingerprint = BASE, quantization: str = "4bit", dtype: str = "bfloat16") -> str:
        return system_fingerprint(base, quantization, dtype, card)

    def files(**changed: str) -> Card:
        return replace(CARD, files={**FILES, **{name.replace("__", "."): value for name, value in changed.items()}})

    different = [
        of(CARD),
        of(None),
        of(CARD, quantization="none"),
        of(CARD, dtype="float32"),
        of(CARD, base=replace(BASE, weights="a" * 64)),
        of(CARD, base=replace(BASE, tokenizer="a" * 64)),
        of(CARD, base=replace(BASE, template="a" * 64)),
        of(files(adapter_model__safetensors="a" * 64)),
        of(files(adapter_config__json="a" * 64)),
        of(files(chat_template__jinja="a" * 64)),
        of(replace(CARD, template="pair")),
        of(replace(CARD, tokens={"<note>": 300})),
        of(replace(CARD, tokens={"<note>": 301})),
    ]
    assert len(set(different)) == len(different)
    assert of(replace(CARD, name="b", description="x", scores={"y": 1}), BASE) == of(CARD)
    assert of(files(README__md="a" * 64)) == of(CARD)
    assert all(len(one) == 27 and one.startswith("fp_") for one in different)


def test_a_fingerprint_leads_back_to_what_gave_it() -> None:
    other = replace(CARD, name="b", files={**FILES, "adapter_model.safetensors": "7" * 64})
    found = sources_of(system_fingerprint(BASE, "none", "float32", other), [CARD, other], [("micro", BASE)])
    assert [(one.adapter, one.adapter_sha256, one.quantization, one.dtype) for one in found] == [
        ("b", "7" * 64, "none", "float32")
    ]
    (bare,) = sources_of(system_fingerprint(BASE, "4bit", "bfloat16", None), [CARD], [("micro", BASE)])
    assert (bare.adapter, bare.base) == (None, "micro")
    assert sources_of("fp_" + "0" * 24, [CARD, other], [("micro", BASE)]) == []


ANSWER = {"id": "cmpl-1", "model": "a", "system_fingerprint": "fp_1", "choices": []}


def test_a_saved_answer_is_read_whole_or_as_a_stream() -> None:
    stream = f"data: {json.dumps(ANSWER)}\n\ndata: {json.dumps(ANSWER)}\n\ndata: [DONE]\n\n"
    for content in (json.dumps(ANSWER), json.dumps(ANSWER, indent=1), stream):
        assert read_response(content.encode(), "x") == Response("cmpl-1", "a", "fp_1")


def test_what_is_no_answer_is_refused() -> None:
    for content in (
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'{"id": "x"}',
        json.dumps({**ANSWER, "system_fingerprint": None}).encode(),
    ):
        with pytest.raises(DataError):
            read_response(content, "x")
    two = f"data: {json.dumps(ANSWER)}\n\ndata: {json.dumps({**ANSWER, 'system_fingerprint': 'fp_2'})}\n\n"
    with pytest.raises(IntegrityError, match="2 answers"):
        read_response(two.encode(), "x")


def test_credentialed_adapters_need_a_key_and_a_permission() -> None:
    card = replace(CARD, data=replace(OPEN, access="credentialed"))
    Audience(permission="Dr. Weber allows it, 3 May", has_keys=True).admit(card)
    Audience(is_local=True).admit(card)
    Audience().admit(CARD)
    for audience in (Audience(), Audience(has_keys=True), Audience(permission="Dr. Weber allows it, 3 May")):
        with pytest.raises(NotPermittedError):
            audience.admit(card)
    with pytest.raises(NotPermittedError):
        Audience(permission="yes", has_keys=True).admit(card)
    with pytest.raises(SettingsError, match="tags tokens"):
        Audience(is_local=True).admit(replace(CARD, labels=["O", "B-X"]))


def test_a_base_that_learned_from_credentialed_data_is_served_like_its_adapter(tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text('{"data": {"access": "credentialed"}}')
    for name in (str(tmp_path), "organization/name"):
        for audience in (Audience(), Audience(has_keys=True)):
            with pytest.raises(NotPermittedError):
                audience.admit_base(name, tmp_path)
        Audience(permission="Dr. Weber allows it, 3 May", has_keys=True).admit_base(name, tmp_path)
        Audience(is_local=True).admit_base(name, tmp_path)


def test_the_last_evaluation_is_the_newest_one() -> None:
    def entry(created: str, verdict: str) -> dict[str, object]:
        change = {"verdict": verdict, "difference": 0.1}
        measure = {"value": 0.6, "base": 0.5, "change": change}
        return {"scoring": "choice", "created": created, "n": 50, "measures": {"accuracy": measure}}

    validation = {"eval_loss": 2.0, "start": 3.0, "verdict": "better", "step": 5}
    scores = {"validation": validation, "x/test/y": entry("2026-01", "worse"), "z/test/y": entry("2026-02", "better")}
    expected = {"on": "z/test/y", "measure": "accuracy", "verdict": "better", "value": 0.6, "base": 0.5, "n": 50}
    assert last_evaluation(replace(CARD, scores=scores)) == expected
    found = last_evaluation(replace(CARD, scores={"validation": validation}))
    assert found is not None and (found["on"], found["verdict"], found["value"]) == ("validation", "better", 2.0)
    assert last_evaluation(CARD) is None


def test_one_format_of_the_base_serves_all_adapters() -> None:
    other = replace(CARD, name="b", base=replace(CARD.base, quantization="none"))
    assert one_quantization([CARD, CARD]) == "4bit"
    with pytest.raises(SettingsError, match="a on 4bit and b on none"):
        one_quantization([CARD, other])


def test_the_metrics_page_has_prometheus_form() -> None:
    metrics = ServerMetrics()
    metrics.requests["/v1/completions", 'a"\\\n', 200] += 2
    metrics.completion_tokens["a"] += 7
    for seconds in (0.004, 0.005, 0.3, 1000.0):
        metrics.request_seconds.observe(seconds)
    engine = Statistics(running=3, loaded=(Loaded("a", "f" * 64, "i"), Loaded("b", "e" * 64, "j")), resident=("b",))
    lines = metrics.render(engine).splitlines()
    assert 'lora_med_requests_total{endpoint="/v1/completions",model="a\\"\\\\\\n",status="200"} 2' in lines
    assert 'lora_med_completion_tokens_total{model="a"} 7' in lines
    assert "lora_med_requests_running 3" in lines
    assert f'lora_med_adapter_loaded{{adapter="a",sha256="{"f" * 64}"}} 0' in lines
    assert f'lora_med_adapter_loaded{{adapter="b",sha256="{"e" * 64}"}} 1' in lines
    buckets = [line.split()[-1] for line in lines if line.startswith("lora_med_request_seconds_bucket")]
    assert buckets == ["2", "2", "2", "2", "2", "2", "3", "3", "3", "3", "3", "3", "3", "3", "4"]
    assert "lora_med_request_seconds_count 4" in lines
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
