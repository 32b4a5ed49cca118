"""An adapter over the bound of its audit: push and export refuse it, an acceptance is recorded, a child inherits it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_med.adapters.algebra.compose import compose
from lora_med.adapters.store.card import CARD, read_card
from lora_med.adapters.store.memorization_bound import accept_excess, excesses, record_acceptance, record_audit
from lora_med.adapters.store.push import push
from lora_med.adapters.store.store import WEIGHTS
from lora_med.cli.main import run
from lora_med.errors import IntegrityError, NotPermittedError, SettingsError
from lora_med.signatures import SIGNATURES, new_keys, sign

EXCESS = "epsilon of the canaries is at least 4.10"
WHO = "Dr. Roe accepts it for one trial"


def audited(store: Path, *exceeded: str, name: str = "abstracts") -> dict[str, Any]:
    """Give the adapter an audit with these excesses; returns the entry of its card."""
    bound = {"most_epsilon": 3.0, "most_extracted": 0, "exceeded": list(exceeded)}
    entry = {"schema": "lora_med.memorization/1", "weights": read_card(store / name).files[WEIGHTS], "bound": bound}
    record_audit(store / name, entry)
    return entry


def over(store: Path) -> Path:
    audited(store, EXCESS)
    return store / "abstracts"


def test_a_card_without_an_audit_is_as_it_was(store: Path) -> None:
    """Cards of earlier versions have no such key, and neither has one that was never audited."""
    content = json.loads((store / "abstracts" / CARD).read_text())
    assert "memorization" not in content
    card = read_card(store / "abstracts")
    assert (card.memorization, excesses(card)) == ({}, [])
    assert accept_excess(card, "pushing", None) is None
    assert card.as_json() == content


def test_an_audit_changes_nothing_else_in_the_card(store: Path) -> None:
    before = json.loads((store / "abstracts" / CARD).read_text())
    entry = audited(store, EXCESS)
    after = json.loads((store / "abstracts" / CARD).read_text())
    assert after.pop("memorization") == entry
    assert after == before


def test_push_is_refused_over_the_bound_before_the_network(store: Path) -> None:
    with pytest.raises(NotPermittedError, match=r"at least 4\.10") as caught:
        push(over(store), "someone/notes")
    assert "--accept-memorization" in (caught.value.fix or "")
    with pytest.raises(NotPermittedError):
        push(store / "abstracts", "someone/notes", accept_memorization="yes please")
    assert "accepted" not in read_card(store / "abstracts").memorization


def test_an_acceptance_is_kept_in_the_card(store: Path) -> None:
    """The push goes on to the Hub, which is offline here."""
    with pytest.raises(SettingsError, match="offline"):
        push(over(store), "someone/notes", accept_memorization=WHO)
    (accepted,) = read_card(store / "abstracts").memorization["accepted"]
    assert (accepted["action"], accepted["by"]) == ("pushing to someone/notes", WHO)
    for action in ("pushing to someone/notes", "pushing to another"):
        record_acceptance(store / "abstracts", {"action": action, "by": WHO, "time": ""})
    assert len(read_card(store / "abstracts").memorization["accepted"]) == 2


def test_an_acceptance_in_a_signed_card_asks_for_another_signature(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="the extra sign is not installed")
    folder = over(store)
    new_keys(tmp_path / "private.pem", tmp_path / "public.pem")
    sign(folder, tmp_path / "private.pem")
    with pytest.raises(IntegrityError, match="no longer holds") as caught:
        push(folder, "someone/notes", accept_memorization=WHO)
    assert f"remove {SIGNATURES}" in (caught.value.fix or "")
    with pytest.raises(IntegrityError, match=r"card\.json was changed"):  # the old list of files is not pushed
        push(folder, "someone/notes", accept_memorization=WHO)
    (folder / SIGNATURES).unlink()
    sign(folder, tmp_path / "private.pem")
    with pytest.raises(SettingsError, match="offline"):  # nothing is left to record
        push(folder, "someone/notes", accept_memorization=WHO)


def test_every_export_has_the_bound(
    store: Path, llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = audited(store, EXCESS)
    words = ["--store", str(store), "--base", str(llama)]
    out = tmp_path / "vllm"
    assert run(["export", "vllm", "abstracts", "--out", str(out), *words]) == 77
    assert "memorization.bound" in capsys.readouterr().err
    assert not out.exists()
    assert run(["export", "vllm", "abstracts", "--out", str(out), *words, "--accept-memorization", WHO]) == 0
    written = json.loads((out / "export.json").read_text())["memorization"]
    assert written["accepted"]["by"] == WHO and written["bound"] == entry["bound"]


def test_an_adapter_within_its_bound_is_exported_with_its_audit(store: Path, llama: Path, tmp_path: Path) -> None:
    audited(store)
    out = tmp_path / "vllm"
    assert run(["export", "vllm", "abstracts", "--out", str(out), "--store", str(store), "--base", str(llama)]) == 0
    assert json.loads((out / "export.json").read_text())["memorization"]["accepted"] is None


def test_a_composed_adapter_inherits_the_excess_of_a_parent(store: Path, llama: Path) -> None:
    over(store)
    compose("both", [("abstracts", 0.5), ("questions", 0.5)], store=store, base=str(llama))
    card = read_card(store / "both")
    assert card.memorization["inherited_from"] == ["abstracts"]
    with pytest.raises(NotPermittedError, match="abstracts: epsilon"):
        push(store / "both", "someone/notes")
    compose("clean", [("questions", 1.0)], store=store, base=str(llama))
    assert read_card(store / "clean").memorization == {}


@pytest.mark.parametrize("entry", [{"bound": {"exceeded": "none"}}, {"bound": {}}, {"schema": "x"}, ["bound"]])
def test_an_audit_without_a_readable_bound_is_refused(store: Path, entry: object) -> None:
    """Else a push would pass for want of an answer."""
    path = store / "abstracts" / CARD
    path.write_text(json.dumps({**json.loads(path.read_text()), "memorization": entry}))
    with pytest.raises(IntegrityError, match="the card cannot be read"):
        push(store / "abstracts", "someone/notes")


def test_figures_of_other_weights_are_not_written(store: Path) -> None:
    with pytest.raises(IntegrityError, match="was replaced while it was audited"):
        record_audit(store / "abstracts", {**audited(store), "weights": "0" * 64})
