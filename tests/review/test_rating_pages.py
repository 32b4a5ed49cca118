"""The rating pages: blind, stable, and stored before they answer."""

from __future__ import annotations

import html
import re

import pytest
from starlette.testclient import TestClient

from lora_med.append_log import read_lines
from lora_med.review.blind.rating import AXES
from lora_med.review.blind.rating_log import RatingLog
from lora_med.review.blind.study import RATINGS, Study
from lora_med.review.verdict.study_result import unseal, write_verdict
from lora_med.review.web.rating_pages import RatingPages

ANSWERED = {"choice": "a", **dict.fromkeys(AXES, "equal")}


@pytest.fixture
def client(study: Study) -> TestClient:
    return TestClient(RatingPages(study).application(), base_url="http://127.0.0.1:8080", follow_redirects=False)


def link(study: Study, position: int | None = None, rater: str = "R1") -> str:
    return f"/rate/{study.tokens[rater]}" + (f"/{position}" if position else "")


def shown_texts(page: str) -> list[str]:
    return [html.unescape(text) for text in re.findall(r'<div class="text"[^>]*>(.*?)</div>', page, re.DOTALL)]


def test_a_page_shows_the_prompt_and_both_answers_on_the_drawn_sides(study: Study, client: TestClient) -> None:
    for each in study.by_rater["R1"]:
        page = client.get(link(study, each.position)).text
        assert shown_texts(page) == [study.items[each.item].prompt, *study.texts(each)]


def test_a_rater_who_reads_the_pages_and_prefers_the_adapters_text_makes_it_win(
    study: Study, client: TestClient
) -> None:
    sides = set()
    for rater, pages in study.by_rater.items():
        for each in pages:
            _, on_a, on_b = shown_texts(client.get(link(study, each.position, rater)).text)
            assert ("No fever." in on_a) != ("No fever." in on_b)  # what the adapter of the small report writes
            choice = "a" if "No fever." in on_a else "b"
            sides.add(choice)
            client.post(link(study, each.position, rater), data={**ANSWERED, "choice": choice})
    assert sides == {"a", "b"}
    unseal(study, "the chair, study complete")
    verdict = write_verdict(study).verdict
    assert (verdict.items_won, verdict.items_lost, verdict.verdict) == (20, 0, "better")


def test_no_page_names_a_model_an_item_or_a_repeat(study: Study, client: TestClient) -> None:
    for rater in study.tokens:
        for path in ("/", link(study, rater=rater), *(link(study, n + 1, rater) for n in range(3))):
            page = client.get(path).text.lower()
            for secret in ("base", "adapter", "notes", "repeat", "micro", "rouge"):
                assert re.search(rf"\b{secret}\b", page) is None, (path, secret)
            assert not any(re.search(rf"\b{item.uid}\b", page) for item in study.items)


def test_loading_a_page_again_changes_nothing(study: Study, client: TestClient) -> None:
    assert client.get(link(study, 3)).content == client.get(link(study, 3)).content


def test_a_rating_is_on_disk_when_the_page_answers(study: Study, client: TestClient) -> None:
    answer = client.post(link(study, 1), data={**ANSWERED, "comment": "dose?", "mark-a-0": "dangerous"})
    assert (answer.status_code, answer.headers["location"]) == (303, link(study, 2))
    lines, _ = read_lines(study.folder / RATINGS)
    first = study.by_rater["R1"][0]
    assert len(lines) == 1
    assert lines[0]["assignment"] == first.id and lines[0]["choice"] == "a" and lines[0]["comment"] == "dose?"
    side, start, end, kind = lines[0]["marks"][0]
    assert (side, kind) == ("a", "dangerous")
    assert study.texts(first)[0][start:end].startswith("The patient takes")


def test_a_stored_rating_fills_its_page_again(study: Study, client: TestClient) -> None:
    client.post(link(study, 1), data={**ANSWERED, "comment": "dose?", "mark-a-0": "dangerous"})
    page = client.get(link(study, 1)).text
    assert len(re.findall("checked", page)) == 5
    assert '<option value="dangerous" selected>' in page and "dose?" in page


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ({}, "choose which answer is better"),
        ({"choice": "a", "accuracy": "a"}, "Which is more complete?"),
        ({**ANSWERED, "choice": "adapter"}, "choose which answer is better"),
        ({**ANSWERED, "harm": "base"}, "does not offer"),
        ({**ANSWERED, "mark-b-0": "<script>"}, "does not offer"),
        ({**ANSWERED, "comment": "x" * 10_001}, "10,001 characters"),
    ],
)
def test_an_incomplete_form_is_not_stored_and_keeps_what_was_answered(
    study: Study, client: TestClient, form: dict[str, str], problem: str
) -> None:
    answer = client.post(link(study, 1), data=form)
    assert answer.status_code == 422 and problem in html.unescape(answer.text)
    assert not RatingLog(study).current()
    assert answer.text.count("checked") == sum(form.get(name) in ("a", "equal") for name in ("choice", *AXES))


def test_who_cannot_judge_need_not_answer_the_rest(study: Study, client: TestClient) -> None:
    assert client.post(link(study, 1), data={"choice": "cannot_judge"}).status_code == 303
    assert RatingLog(study).current()[study.by_rater["R1"][0].id].axes == {}


def test_the_last_page_leads_back_to_the_overview(study: Study, client: TestClient) -> None:
    pages = study.by_rater["R1"]
    for each in pages:
        answer = client.post(link(study, each.position), data=ANSWERED)
    assert answer.headers["location"] == link(study)
    assert "All pages are rated" in client.get(link(study)).text


def test_after_unsealing_a_rating_is_refused_in_words(study: Study, client: TestClient) -> None:
    unseal(study, "the chair, for a test", incomplete=True)
    answer = client.post(link(study, 1), data=ANSWERED)
    assert answer.status_code == 503 and "not saved: the study is unsealed" in answer.text
    assert not RatingLog(study).current()


@pytest.mark.parametrize("token", ["", "x", "R1", "é", "..%2f"])
def test_a_wrong_token_opens_nothing(study: Study, client: TestClient, token: str) -> None:
    for path in (f"/rate/{token}", f"/rate/{token}/1"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert "takes" not in answer.text


def test_a_position_that_does_not_exist_is_not_found(study: Study, client: TestClient) -> None:
    for position in ("0", "999", "-1", "1.5", "x"):
        assert client.get(f"{link(study)}/{position}").status_code == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "0.0.0.0:8080", "", "localhost@evil", "a b"]
)
def test_a_foreign_host_is_refused(study: Study, client: TestClient, host: str) -> None:
    assert client.get(link(study, 1), headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost:9", "127.0.0.1:8080", "[::1]:8080", "127.0.0.2"])
def test_a_loopback_host_is_admitted(study: Study, client: TestClient, host: str) -> None:
    assert client.get(link(study, 1), headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999"])
def test_a_foreign_origin_stores_nothing(study: Study, client: TestClient, origin: str) -> None:
    answer = client.post(link(study, 1), data=ANSWERED, headers={"origin": origin})
    assert answer.status_code == 403 and not RatingLog(study).current()


def test_the_pages_own_origin_stores(study: Study, client: TestClient) -> None:
    answer = client.post(link(study, 1), data=ANSWERED, headers={"origin": "http://127.0.0.1:8080"})
    assert answer.status_code == 303


def test_a_body_of_many_megabytes_is_refused(study: Study, client: TestClient) -> None:
    assert client.post(link(study, 1), data={"comment": "x" * 5_000_000}).status_code == 413


def test_every_answer_has_the_headers_that_protect(study: Study, client: TestClient) -> None:
    answers = [client.get(path) for path in ("/", link(study), link(study, 1), "/static/style.css", "/nothing")]
    answers.append(client.get("/", headers={"host": "evil.example"}))
    for answer in answers:
        assert answer.headers["content-security-policy"].startswith("default-src 'self'; ")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_no_page_has_inline_script_or_style_or_a_foreign_address(study: Study, client: TestClient) -> None:
    for path in ("/", link(study), link(study, 1)):
        page = client.get(path).text
        assert re.search(r"<script(?! src=\"/static/)|\son\w+=|\sstyle=|<style", page) is None
        assert re.search(r"(?:src|href|action)=\"(?!/|#)", page) is None
        assert len(page) < 100_000
