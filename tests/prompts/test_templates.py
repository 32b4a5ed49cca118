"""What each template writes, byte for byte: a template is frozen, so a change here is a new template."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lora_med.data.record import Pair, Passage, Question, Record, Section
from lora_med.errors import SettingsError
from lora_med.prompts.answers import read_choice
from lora_med.prompts.render import render
from lora_med.prompts.templates import TEMPLATES, Row, find_template

PASSAGE = Passage(
    "p", "g", "pubmed", "AIM: Why.\nIt did.", "On it.", (Section("Why.", "AIM", "OBJECTIVE"), Section("It did."))
)
UNTITLED = Passage("p", "g", "custom", "Just text. ")
QUESTION = Question("q", "g", "pubmedqa", "Does it?", "no", ("One.", "Two."), ("yes", "no", "maybe"), "It does not.")
PAIR = Pair("r", "g", "custom", "Ask ", "Say\n")
TALK = Pair(
    "r", "g", "custom", " Why? ", "So.", history=(("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes"))
)

GOLDEN: list[tuple[str, Record, Row]] = [
    ("text", PASSAGE, Row("p", "g", (), "", "On it.\nAIM: Why.\nIt did.")),
    ("text", UNTITLED, Row("p", "g", (), "", "Just text. ")),
    ("pubmedqa", QUESTION, Row("q", "g", (), "Abstract: One.\nTwo.\nQuestion: Does it?\nAnswer:", " no")),
    (
        "pubmedqa_chat",
        QUESTION,
        Row(
            "q",
            "g",
            (
                ("user", "Abstract: One.\nTwo.\nQuestion: Does it?\nAnswer with yes, no or maybe."),
                ("assistant", "no"),
            ),
            "",
            "no",
        ),
    ),
    ("pair", PAIR, Row("r", "g", (), "Ask ", "Say\n")),
    (
        "pair_chat",
        TALK,
        Row(
            "r",
            "g",
            (("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes"), ("user", "Why?"), ("assistant", "So.")),
            "",
            "So.",
        ),
    ),
    (
        "question_chat",
        QUESTION,
        Row(
            "q",
            "g",
            (("user", "One.\nTwo.\nDoes it?\nA. yes\nB. no\nC. maybe"), ("assistant", "no")),
            "",
            "no",
        ),
    ),
]


@pytest.mark.parametrize(("name", "record", "row"), GOLDEN)
def test_a_template_writes_what_it_always_wrote(name: str, record: Record, row: Row) -> None:
    assert render([record], name) == [row]


def test_every_template_has_its_golden_row() -> None:
    assert {name for name, _, _ in GOLDEN} == set(TEMPLATES)


def test_pubmedqa_words_it_as_lm_evaluation_harness() -> None:
    def doc_to_text(doc: dict[str, object]) -> str:  # as in lm_eval/tasks/pubmedqa/preprocess_pubmedqa.py
        contexts = "\n".join(doc["CONTEXTS"])  # type: ignore[arg-type]
        return "Abstract: {}\nQuestion: {}\nAnswer:".format(contexts, doc["QUESTION"])

    doc = {"CONTEXTS": list(QUESTION.contexts), "QUESTION": QUESTION.question}
    (row,) = render([QUESTION], "pubmedqa")
    assert row.prompt == doc_to_text(doc)
    assert row.completion == " " + QUESTION.answer
    assert QUESTION.explanation not in row.prompt  # reasoning-required: the conclusion is never shown


@pytest.mark.parametrize("name", ["pubmedqa", "pubmedqa_chat"])
def test_the_completion_is_among_the_options(name: str) -> None:
    template = find_template(name)
    options: Callable[[Record], tuple[str, ...]] | None = template.options
    assert options is not None
    assert template.render(QUESTION).completion == options(QUESTION)[1]


def test_the_wrong_kind_of_record_names_both_and_what_would_fit() -> None:
    with pytest.raises(SettingsError, match=r"'pubmedqa' takes a Question, and record p is a Passage") as caught:
        render([PASSAGE], "pubmedqa")
    assert "text" in (caught.value.fix or "")


def test_a_conversation_is_not_squeezed_into_a_pair() -> None:
    with pytest.raises(SettingsError, match="3 turns come before"):
        render([TALK], "pair")


def test_an_unknown_template_names_the_near_one() -> None:
    with pytest.raises(SettingsError, match="did you mean 'pubmedqa'"):
        find_template("pubmeqa")


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        (" yes", "yes"),
        ("Yes, because no one died.", "yes"),
        ("**No**", "no"),
        ("\n\nmaybe\nyes", "maybe"),
        ("The answer is no.", "no"),
        ("yesterday", None),
        ("It could be yes or no", None),
        ("nothing", None),
        ("", None),
    ],
)
def test_a_written_answer_is_read_back_or_left_open(text: str, choice: str | None) -> None:
    assert read_choice(text, ("yes", "no", "maybe")) == choice
