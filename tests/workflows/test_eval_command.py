"""`lora-med eval` as a user types it: what the card knows is not asked, and seen items are not scored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_med.adapters.store.card import read_card
from lora_med.cli.main import run
from lora_med.config.data_settings import DataSettings
from lora_med.config.schema import Settings
from lora_med.data.catalog import find_source
from lora_med.errors import SettingsError
from lora_med.evaluation.tasks import check_scoring
from lora_med.files import sha256_file
from lora_med.prompts.templates.templates import find_template
from lora_med.workflows.heldout_settings import choose_template, heldout_settings, stated_class
from tests.evaluation.published import publish_random
from tests.tiny import make_tiny


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command")
    rows = [{"uid": f"r{n}", "text": f"Case {n}: fever and cough for {n} days, no rash."} for n in range(60)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"source": "custom", "paths": [str(folder / "rows.jsonl")], "test_share": 0.4, "split_seed": 3}
    settings = Settings.model_validate({"data": data}).model_dump(mode="json")
    make_tiny("llama", folder / "base")
    make_tiny("llama", folder / "other", seed=9)
    publish_random(folder / "base", "plain", folder / "store", settings=settings)
    return folder


def arguments(home: Path, out: Path, *more: str, base: str = "base") -> list[str]:
    named = ["--adapter", "plain", "--base", str(home / base), "--store", str(home / "store"), "--out", str(out)]
    return ["eval", *named, "--data", str(home / "rows.jsonl"), "--bootstrap-samples", "200", *more]


def test_the_split_of_the_card_is_scored(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments(home, tmp_path / "out", "--json")) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads((tmp_path / "out/report.json").read_text())
    (entry,) = said["evaluations"]
    assert 15 <= entry["items"] <= 33, "about 0.4 of 60, the card's share; the default would give about 3"
    assert entry["template"] == "text"
    assert entry["base"]["quantization"] == "none", "as it was trained"
    assert read_card(home / "store/plain").scores["custom/test/text"]["n"] == entry["items"]
    for name in ("report.html", "report.md", "items.jsonl"):
        assert (tmp_path / "out" / name).stat().st_size > 0


def test_the_screen_says_the_verdict(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments(home, tmp_path / "out")) == 0
    said = " ".join(capsys.readouterr().out.split())
    report = json.loads((tmp_path / "out/report.json").read_text())
    verdict = report["evaluations"][0]["subjects"][1]["changes"]["bits_per_byte"]["verdict"]
    assert f"plain is {verdict} than its base" in said
    assert "bits per byte" in said


def test_another_base_of_equal_shape_is_refused_with_76(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments(home, tmp_path / "out", base="other")) == 76
    assert "was trained on another base" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("data.split_seed=4",), 2, "trained under another split"),
        (("--task", "choice"), 2, "'text' cannot be scored as choice"),
        (("--task", "writing"), 2, "cannot be scored as writing"),
        (("--task", "pubmedqo"), 2, "did you mean 'pubmedqa'"),
        (("--task", "pubmedqa", "--task", "medqa"), 2, "several tasks cannot share"),
        (("--shots", "2"), 2, "shots does nothing for a task scored as text"),
        (("--metric", "nowhere:one"), 2, "no module named 'nowhere'"),
        (("--split", "train"), 2, "is not one of 'test', 'validation'"),
        (("--template", "pubmedqa"), 2, "takes a Question"),
        (("--adapter", "plane"), 66, "did you mean 'plain'"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    more: tuple[str, ...], code: int, said: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments(home, tmp_path / "out", *more)) == code
    assert said in capsys.readouterr().err


def test_no_adapter_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval"]) == 2
    assert "neither adapter nor base is named" in capsys.readouterr().err


def test_several_tasks_share_one_base_and_one_report(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pubmedqa = {
        str(n): {"QUESTION": f"Is it {n}?", "CONTEXTS": ["One."], "final_decision": "yes", "LONG_ANSWER": "It is."}
        for n in range(400)
    }
    (tmp_path / "ori_pqal.json").write_text(json.dumps(pubmedqa))
    named = ["--adapter", "plain", "--base", str(home / "base"), "--store", str(home / "store"), "--json"]
    tasks = [f"{name}:{tmp_path / 'ori_pqal.json'}" for name in ("pubmedqa", "pubmedqa_reasoning_free")]
    given = [word for task in tasks for word in ("--task", task)]
    assert run(["eval", *named, *given, "--out", str(tmp_path / "out"), "--bootstrap-samples", "50"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["template"] for one in said["evaluations"]] == ["pubmedqa", "pubmedqa_reasoning_free"]
    assert len(said["comparisons"]) == 2
    assert {"pubmedqa/test/pubmedqa", "pubmedqa/test/pubmedqa_reasoning_free"} <= set(
        read_card(home / "store/plain").scores
    )


def test_entities_are_written_placed_and_set_against_marking_by_heart(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for first, part, illness in ((0, "Training", "fever"), (500, "Test", "cough")):
        path = tmp_path / f"CDR_{part}Set.PubTator.txt"
        lines = [
            f"{n}|t|Aspirin for {illness} {n}.\n{n}|a|None.\n{n}\t0\t7\tAspirin\tChemical\tD1\n"
            f"{n}\t12\t17\t{illness}\tDisease\tD2\n\n"
            for n in range(first, first + 30)
        ]
        path.write_text("".join(lines))
        files += ["--task", f"bc5cdr:{path}"]
    named = ["--adapter", "plain", "--base", str(home / "base"), "--store", str(home / "store"), "--json"]
    more = ["--out", str(tmp_path / "out"), "--bootstrap-samples", "50", "--max-items", "4"]
    more += ["data.near_duplicate_similarity=1", "data.block_lists=[]"]
    assert run(["eval", *named, *files, *more]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["evaluations"]
    assert entry["layout"] == {"types": ["Chemical", "Disease"], "unseen": True}
    (baseline,) = entry["baselines"]
    assert 0 < baseline["values"]["micro_f1"]["value"] < 1, "it knows aspirin, and not this fever"
    assert "of 8 gold mentions" in entry["notes"][0]
    assert (tmp_path / "out/report.html").read_text().count("<svg") == 1


def test_the_general_probe_needs_no_file_and_lists_its_subjects(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["--adapter", "plain", "--base", str(home / "base"), "--store", str(home / "store"), "--json"]
    given = ["--task", "general", "--out", str(tmp_path / "out"), "--bootstrap-samples", "20"]
    assert run(["eval", *named, *given]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["evaluations"]
    assert entry["items"] == 355, "no adapter learned from it, so all of it is scored"
    values = entry["subjects"][0]["values"]
    subjects = ("agreement", "arithmetic", "determiner", "knowledge", "participle", "reflexive")
    assert {f"accuracy_{name}" for name in subjects} <= set(values)
    sizes = dict(zip(subjects, (60, 55, 60, 60, 60, 60), strict=True))
    hits = sum(values[f"accuracy_{name}"]["value"] * size for name, size in sizes.items())
    assert hits == pytest.approx(values["accuracy"]["value"] * 355)


def test_the_tasks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "--list-tasks", "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["medmcqa"]["split"] == "validation"
    for one in found.values():
        check_scoring(one["template"], one["scoring"])
        assert find_template(one["template"]).takes in find_source(one["source"]).kinds


def test_another_source_takes_its_own_defaults(home: Path) -> None:
    card = read_card(home / "store/plain")
    found = heldout_settings([card], source="pubmed", paths=["a.xml"])
    assert (found.source, found.test_share, found.paths) == ("pubmed", 0.05, ["a.xml"])
    assert choose_template([card], "pubmedqa", None) == "pubmedqa"
    with pytest.raises(SettingsError, match="no file of pubmed"):
        heldout_settings([card], source="pubmed")


def test_settings_of_the_card_are_the_defaults(home: Path) -> None:
    card: Any = read_card(home / "store/plain")
    found = heldout_settings([card])
    assert (found.source, found.split_seed, found.test_share) == ("custom", 3, 0.4)


def test_each_source_of_a_mixture_is_held_out_as_it_was_trained(home: Path) -> None:
    card = read_card(home / "store/plain")
    mixed = {"source": "pubmed", "paths": ["b.xml"], "weight": 2.0, "max_records": 9}
    data = {**card.settings["data"], "mix": [mixed]}
    both = replace(card, data=replace(card.data, source="custom+pubmed"), settings={**card.settings, "data": data})
    first, second = heldout_settings([both]), heldout_settings([both], source="pubmed")
    assert (first.source, first.split_seed, first.mix) == ("custom", 3, [])
    assert (second.source, second.paths, second.split_seed, second.test_share) == ("pubmed", ["b.xml"], 3, 0.4)
    with pytest.raises(SettingsError, match="trained under another split"):
        heldout_settings([both], source="pubmed", overrides=["data.near_duplicate_similarity=0.5"])


def test_what_decides_which_group_moves_is_the_cards_too(home: Path, tmp_path: Path) -> None:
    card = read_card(home / "store/plain")
    given = {"max_records": 40, "decontaminate": False, "block_lists": ["seen.json"], "test_files": ["custom:x.jsonl"]}
    bound = replace(card, settings={**card.settings, "data": {**card.settings["data"], **given}})
    found = heldout_settings([bound])
    assert {key: getattr(found, key) for key in given} == given
    moved = [f"data.block_lists=[{tmp_path / 'seen.json'}]", f"data.test_files=[custom:{tmp_path / 'x.jsonl'}]"]
    assert heldout_settings([bound], overrides=moved).block_lists == [str(tmp_path / "seen.json")]
    for other in ("max_records=41", "decontaminate=true", "block_lists=[other.json]", "test_files=[]"):
        with pytest.raises(SettingsError, match="trained under another split"):
            heldout_settings([bound], overrides=[f"data.{other}"])


def test_files_of_the_card_that_are_not_here_are_asked_for_with_data(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"source": "custom", "paths": ["rows.jsonl"], "test_share": 0.4, "split_seed": 3}
    settings = Settings.model_validate({"data": data}).model_dump(mode="json")
    publish_random(home / "base", "relative", tmp_path / "store", settings=settings)
    monkeypatch.chdir(tmp_path)
    named = ["eval", "--adapter", "relative", "--base", str(home / "base"), "--store", "store", "--out", "out"]
    assert run(named) == 66
    message = capsys.readouterr().err
    assert "give --data" in message and "data.paths" not in message
    assert run([*named, "--data", "gone.jsonl"]) == 66
    assert "where: --data" in capsys.readouterr().err


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A published split in two files, its test file with an item twice and an item without text."""
    monkeypatch.chdir(tmp_path)
    rows = {
        "train": [{"text": f"Case {n}: fever for {n} days."} for n in range(6)],
        "test": [{"text": "A rash on day 1."}, {"text": "A cough."}, {"text": "A rash on day 1."}, {"text": " "}],
    }
    (tmp_path / "data").mkdir()
    for name, items in rows.items():
        (tmp_path / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in items))
    return tmp_path


def score(home: Path, *more: str) -> int:
    named = ["--base", str(home / "base"), "--source", "custom", "--data", "data", "--bootstrap-samples", "50"]
    return run(["eval", *named, "data.skip_bad=true", "data.near_duplicate_similarity=0", *more])


def test_the_report_says_how_many_of_the_published_items_are_scored(
    home: Path, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(home, "--out", "out", "--access", "open") == 0
    assert "3 of 4 published items are scored; left out: empty_text 1." in " ".join(capsys.readouterr().out.split())
    (entry,) = json.loads((published / "out/report.json").read_text())["evaluations"]
    assert (entry["items"], entry["published"], entry["left_out"]) == (3, 4, {"empty_text": 1})
    assert "3 of 4 published items are scored" in (published / "out/report.md").read_text()
    assert len((published / "out/items.jsonl").read_text().splitlines()) == 3
    assert score(home, "--out", "out", "--access", "open", "--max-items", "1", "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)["evaluations"]
    assert entry["left_out"] == {"empty_text": 1, "max_items": 2}


def test_the_card_says_how_many_of_the_published_items_are_scored(home: Path, published: Path) -> None:
    (published / "data/test.jsonl").write_text('{"text": "A rash."}\n{"text": "A rash."}\n')
    more = ["--adapter", "plain", "--store", str(home / "store"), "data.test_share=0.4", "data.split_seed=3"]
    near = "data.near_duplicate_similarity=0.8"
    assert score(home, *more, near, "--out", "out", "--access", "open") == 0
    entry = read_card(home / "store/plain").scores["custom/test/text"]
    assert (entry["n"], entry["published"], entry["left_out"]) == (2, 2, {})
    assert "All 2 published items are scored." in (published / "out/report.md").read_text()


def test_rows_that_nobody_classed_are_scored_as_credentialed(
    home: Path, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(home, "--out", "out") == 0
    said = capsys.readouterr().err
    assert said.count("has no access class until you state one: --access open") == 1
    assert all(path.stat().st_mode & 0o077 == 0 for path in (published / "out").iterdir())
    assert not any("rash" in path.read_text() for path in (published / "out").iterdir())
    assert score(home, "--out", "open", "--access", "open") == 0
    assert "no access class" not in capsys.readouterr().err
    assert "rash" in (published / "open/report.html").read_text()
    harness = ["eval", "harness", "--source", "custom", "--data", "data", "--out", "tasks", "data.skip_bad=true"]
    assert run([*harness, "data.near_duplicate_similarity=0"]) == 77
    assert run([*harness, "data.near_duplicate_similarity=0", "--access", "open"]) == 0


def test_a_report_is_written_over_nothing_that_it_scores(home: Path, published: Path) -> None:
    for name in ("train", "test"):
        (published / "data" / f"{name}.jsonl").rename(published / "data" / f"{name}.json")
    assert score(home, "--out", "data", "--access", "open") == 73
    (published / "items.jsonl").write_text('{"text": "A rash."}\n{"text": "A cough."}\n')
    named = ["--base", str(home / "base"), "--source", "custom", "--data", "items.jsonl", "--access", "open"]
    assert run(["eval", *named, "--out", "."]) == 73
    assert (published / "items.jsonl").read_text().startswith('{"text": "A rash."}')
    assert run(["eval", *named, "--out", "out"]) == 0


def test_the_class_on_the_card_counts_for_the_very_files_it_was_stated_for(home: Path, published: Path) -> None:
    card = read_card(home / "store/plain")
    digest = sha256_file(home / "rows.jsonl")
    trained = replace(card, data=replace(card.data, hashes={"rows.jsonl": digest}, access="registered"))
    (published / "copy.jsonl").write_bytes((home / "rows.jsonl").read_bytes())
    (published / "other.jsonl").write_text('{"text": "Other."}\n')

    def stated(*names: str) -> str | None:
        return stated_class([trained], DataSettings(source="custom", paths=[str(published / name) for name in names]))

    assert stated("copy.jsonl") == "registered"
    assert stated("other.jsonl") is stated("copy.jsonl", "other.jsonl") is stated("data") is None
    assert stated_class([trained], DataSettings(source="pubmed", paths=[str(published / "copy.jsonl")])) is None
