"""The pages of reports: items filtered, answers side by side, claims marked, nothing of credentialed text."""

from __future__ import annotations

import html
import json
import re
import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from lora_med.cli.review.items_reading import reading_by_cards
from lora_med.errors import DataError, InputMissingError, IntegrityError, NotPermittedError
from lora_med.review.web.evidence import load_evidence
from lora_med.review.web.evidence_pages import EvidencePages
from tests.review.small_report import adapter_answer, make_report
from tests.review.small_store import publish_card

HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m" + "w" * 3000


def client_of(folder: Path, data: list[str], store: Path) -> TestClient:
    pages = EvidencePages([load_evidence(folder, data)], store)
    return TestClient(pages.application(), base_url="http://127.0.0.1:8080")


@pytest.fixture(scope="module")
def client(small_report: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    return client_of(small_report[0], [str(small_report[1])], tmp_path_factory.mktemp("store"))


def uids(page: str) -> list[str]:
    return re.findall(r'<th scope="row"><a href="/reports/0/0/\d+">(u\d+)</a>', page)


def test_the_first_page_has_each_value_with_its_interval(small_report: tuple[Path, Path], client: TestClient) -> None:
    page = html.unescape(client.get("/").text)
    content = json.loads((small_report[0] / "report.json").read_text())
    for subject in content["evaluations"][0]["subjects"]:
        value = subject["values"]["rouge_l"]
        assert f"{value['value']:.3f}" in page and f"{value['low']:.3f} to {value['high']:.3f}" in page
    assert "Notes, base and adapter" in page and "Access class: <strong>open</strong>" in page


def test_items_are_filtered_by_who_was_better(client: TestClient) -> None:
    every = uids(client.get("/reports/0/0").text)
    parts = [uids(client.get(f"/reports/0/0?outcome={name}").text) for name in ("gained", "lost", "same")]
    assert len(every) == 40
    assert sorted(uid for part in parts for uid in part) == sorted(every) and parts[0]


def test_items_are_searched_in_prompts_and_answers(client: TestClient) -> None:
    assert uids(client.get("/reports/0/0?search=metformin 30 mg").text) == ["u2"]
    assert uids(client.get("/reports/0/0", params={"search": "<script>"}).text) == []


def test_the_largest_gain_comes_first(client: TestClient) -> None:
    page = client.get("/reports/0/0?order=gain").text
    gains = [float(text) for text in re.findall(r'<td class="number \w+">([+-][\d.e+-]+)</td>', page)]
    assert gains == sorted(gains, reverse=True) and len(set(gains)) > 1


def test_an_item_shows_prompt_reference_and_answers_with_unsupported_claims_marked(client: TestClient) -> None:
    page = client.get("/reports/0/0/3").text
    assert "I take ibuprofen 40 mg daily" in page and "Takes ibuprofen 40 mg daily; no fever." in page
    marked = [re.sub(r"<.*", "", text) for text in re.findall(r"<mark[^>]*>(.*?)</mark>", page)]
    assert "45 mg" in marked and "40 mg" not in marked
    assert "No fever" not in marked


def test_without_the_files_answers_are_shown_and_the_missing_prompt_is_said(
    small_report: tuple[Path, Path], tmp_path: Path
) -> None:
    page = client_of(small_report[0], [], tmp_path).get("/reports/0/0/3").text
    assert "ibuprofen 45 mg" in page and "holds no prompts" in page and "<mark" not in page


def test_credentialed_items_show_no_text_and_hashed_uids(tmp_path: Path) -> None:
    folder, data = make_report(tmp_path, 12, access="credentialed")
    client = client_of(folder, [str(data)], tmp_path)
    for path in ("/", "/reports/0/0", "/reports/0/0/3"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "ibuprofen" not in answer.text and "takes" not in answer.text.lower()
        assert "Access class: <strong>credentialed</strong>" in answer.text
        assert answer.headers["cache-control"] == "no-store"


def test_with_a_permission_credentialed_prompts_are_shown_under_hashed_uids(tmp_path: Path) -> None:
    folder, data = make_report(tmp_path, 12, access="credentialed")
    evidence = load_evidence(folder, [str(data)], "the data office allows it, letter of May 3")
    pages = EvidencePages([evidence], tmp_path)
    client = TestClient(pages.application(), base_url="http://127.0.0.1:8080")
    answer = client.get("/reports/0/0/3")
    assert "I take ibuprofen 40 mg daily" in answer.text and "shown with the permission" in answer.text
    assert (
        "Access class: <strong>credentialed</strong>" in answer.text and answer.headers["cache-control"] == "no-store"
    )
    assert "u3" not in re.findall(r"<h1>Item (.*?)</h1>", answer.text)
    assert len(re.findall(r"<h1>Item sha256:[0-9a-f]{16}</h1>", answer.text)) == 1
    with pytest.raises(NotPermittedError, match="showing the prompts of custom, test, pair"):
        load_evidence(folder, [str(data)], "I may")


def test_files_of_two_evaluations_each_give_their_own_prompts(tmp_path: Path) -> None:
    folder, data = make_report(tmp_path, 6)
    other = tmp_path / "other.csv"
    other.write_text("a;b\n1\n")
    evidence = load_evidence(folder, [str(other), str(data)])
    assert len(evidence.evaluations[0].texts) == 6


def test_a_report_on_the_base_alone_shows_its_items(tmp_path: Path) -> None:
    folder, _ = make_report(tmp_path, 6, adapters={})
    client = client_of(folder, [], tmp_path)
    page = client.get("/reports/0/0").text
    assert uids(page) == [f"u{n}" for n in range(6)] and "Gain" not in page
    assert client.get("/reports/0/0/0").status_code == 200


def test_files_that_fit_one_of_two_evaluations_are_enough_and_none_is_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, data = make_report(tmp_path, 6)
    content = json.loads((folder / "report.json").read_text())
    other = {**content["evaluations"][0], "items_file": "other.jsonl"}
    content["evaluations"].append(other)
    (folder / "report.json").write_text(json.dumps(content))
    renamed = (folder / "items.jsonl").read_text().replace('"uid": "u', '"uid": "x')
    (folder / "other.jsonl").write_text(renamed)
    evidence = load_evidence(folder, [str(data)])
    assert [len(each.texts) for each in evidence.evaluations] == [6, 0]
    assert "no prompts are shown for custom, test, pair: none of the report's 6 items" in caplog.text
    unrelated = tmp_path / "unrelated.jsonl"
    unrelated.write_text('{"uid": "z", "input": "a question", "output": "an answer"}\n')
    with pytest.raises(DataError, match="none of the report's 6 items"):
        load_evidence(folder, [str(unrelated)])


def test_hostile_text_is_only_text(tmp_path: Path) -> None:
    folder, data = make_report(
        tmp_path, 12, base=lambda n, drug, dose: HOSTILE, adapters={"<b>x": adapter_answer, "y": lambda *_: HOSTILE}
    )
    client = client_of(folder, [str(data)], tmp_path)
    for path in ("/", "/reports/0/0", "/reports/0/0/3", "/reports/0/0?search=" + HOSTILE[:25]):
        page = client.get(path).text
        assert "<script" not in page and "<b>" not in page
        assert "\u202e" not in page and "\x1b" not in page


def test_a_text_of_ten_megabytes_is_cut_and_the_rest_counted(tmp_path: Path) -> None:
    folder, data = make_report(tmp_path, 6)
    lines = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    lines[0]["base"]["written"] = "a mg " * 2_000_000
    (folder / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    answer = client_of(folder, [str(data)], tmp_path).get("/reports/0/0/0")
    assert "9,980,000 more characters are not shown" in answer.text
    assert len(answer.content) < 1_000_000


@pytest.mark.parametrize(
    "path", ["/reports/1/0", "/reports/0/1", "/reports/0/0/40", "/reports/x/0", "/adapters/none", "/nothing"]
)
def test_what_is_not_there_is_not_found(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("query", ["page=-1", "page=99999999999", "adapter=none", "outcome=x", "order=x", "page=²"])
def test_a_strange_query_is_no_error(client: TestClient, query: str) -> None:
    assert client.get(f"/reports/0/0?{query}").status_code == 200


@pytest.mark.slow
def test_500_items_and_three_adapters_answer_in_time_and_size(tmp_path: Path) -> None:
    names = {f"notes-{n}": adapter_answer for n in range(3)}
    folder, data = make_report(tmp_path, 500, adapters=names)
    client = client_of(folder, [str(data)], tmp_path)
    assert len(client.get("/").content) < 100_000
    seconds = []
    for number in range(60):
        begun = time.process_time()
        path = ("/", f"/reports/0/0?page={number % 10}", f"/reports/0/0/{number}", "/reports/0/0?search=aspirin")
        client.get(path[number % 4])
        seconds.append(time.process_time() - begun)
    assert sorted(seconds)[int(0.95 * len(seconds))] < 0.2


def test_a_folder_without_a_report_and_a_damaged_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"no report\.json"):
        load_evidence(tmp_path, [])
    (tmp_path / "report.json").write_text('{"schema": "other"}')
    with pytest.raises(IntegrityError, match="not a report"):
        load_evidence(tmp_path, [])


@pytest.mark.parametrize("line", ["", "secret", "[]", '{"uid": 3}', '{"uid": "a", "base": {}, "adapters": {}}'])
def test_a_damaged_line_of_the_items_is_named_without_its_text(tmp_path: Path, line: str) -> None:
    folder, _ = make_report(tmp_path, 6)
    (folder / "items.jsonl").write_text(f"{line}\n")
    with pytest.raises(IntegrityError) as error:
        load_evidence(folder, [])
    assert "items.jsonl:1" in str(error.value) and "secret" not in str(error.value)


def test_fewer_items_than_the_report_says_are_refused(tmp_path: Path) -> None:
    folder, _ = make_report(tmp_path, 6)
    lines = (folder / "items.jsonl").read_text().splitlines(keepends=True)
    (folder / "items.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(IntegrityError, match=r"5 items, and report\.json says 6"):
        load_evidence(folder, [])


def test_a_layout_of_another_version_is_named(tmp_path: Path) -> None:
    folder, _ = make_report(tmp_path, 6)
    content = json.loads((folder / "report.json").read_text())
    content["evaluations"][0]["layout"] = {}
    (folder / "report.json").write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match="layout"):
        load_evidence(folder, [])


def test_a_report_that_names_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    folder, _ = make_report(tmp_path, 6)
    content = json.loads((folder / "report.json").read_text())
    content["evaluations"][0]["items_file"] = "../secret.jsonl"
    (folder / "report.json").write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match="not a report"):
        load_evidence(folder, [])


@pytest.mark.parametrize(
    "changed",
    [{"comparisons": [{}]}, {"comparisons": {}}, {"ratings": [{"study": "x"}]}, {"ratings": [3]}, {"ratings": 3}],
)
def test_a_report_with_damaged_comparisons_or_ratings_is_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    folder, _ = make_report(tmp_path, 6)
    content = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps(content | changed))
    with pytest.raises(IntegrityError, match=f"not a report(.|\n)*{next(iter(changed))}"):
        load_evidence(folder, [])


def test_files_are_read_as_the_card_of_the_adapter_has_it_and_a_named_column_wins(tmp_path: Path) -> None:
    folder, data = make_report(tmp_path, 6)
    records = [json.loads(line) for line in data.read_text().splitlines()]
    named = [{"uid": each["uid"], "asked": each["input"], "reply": each["output"], "x": "other"} for each in records]
    data.write_text("".join(json.dumps(record) + "\n" for record in named))
    store = tmp_path / "store"
    card = json.loads((publish_card(store, "notes") / "card.json").read_text())
    columns = {"uid": "uid", "input": "asked", "output": "reply"}
    card["settings"]["data"] = {"columns": columns, "ignore_columns": ["x"]}
    (store / "notes" / "card.json").write_text(json.dumps(card))
    evidence = load_evidence(folder, [str(data)], None, reading_by_cards(store, None))
    assert "ibuprofen 40 mg" in evidence.evaluations[0].texts["u3"].prompt
    evidence = load_evidence(folder, [str(data)], None, reading_by_cards(store, ["output=x"]))
    assert evidence.evaluations[0].texts["u3"].reference == "other"
    with pytest.raises(DataError, match="asked, reply"):
        load_evidence(folder, [str(data)], None, reading_by_cards(tmp_path / "none", None))


def test_the_place_of_a_claim_is_on_one_line(tmp_path: Path) -> None:
    folder, data = make_report(tmp_path, 6)
    data.write_text(data.read_text().replace("I take ", "I take\\n"))
    page = client_of(folder, [str(data)], tmp_path).get("/reports/0/0/3").text
    assert "I take ibuprofen 40 mg" in html.unescape(page)
    assert "␊" not in page
