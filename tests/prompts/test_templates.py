"""What each template writes, byte for byte: a template is frozen, so a change here is a new template."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from lora_med.data.record import Annotated, Pair, Passage, Question, Record, Section, Span
from lora_med.errors import SettingsError
from lora_med.prompts.answers import read_choice, read_letter
from lora_med.prompts.render import fitting, render
from lora_med.prompts.row import Row, shortened
from lora_med.prompts.templates.templates import TEMPLATES, find_template

PASSAGE = Passage(
    "p", "g", "pubmed", "AIM: Why.\nIt did.", "On it.", (Section("Why.", "AIM", "OBJECTIVE"), Section("It did."))
)
UNTITLED = Passage("p", "g", "custom", "Just text. ")
QUESTION = Question("q", "g", "pubmedqa", "Does it?", "no", ("One.", "Two."), ("yes", "no", "maybe"), "It does not.")
PAIR = Pair("r", "g", "custom", "Ask ", "Say\n")
TALK = Pair(
    "r", "g", "custom", " Why? ", "So.", history=(("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes"))
)

VIGNETTE = Question("v", "g", "medqa", "Which one?", "Two", (), ("One", "Two", "Three", "Four"))
SUBJECT = Question(
    "s", "g", "mmlu", " Which? ", "Three", (), ("One", "Two", "Three", "Four"), subject="college_medicine"
)
VISIT = Pair("n", "g", "mts_dialog", "Doctor: Hi.\nPatient: Hello.", "Well.", "GENHX")
MARKED = Annotated(
    "m",
    "g",
    "bc5cdr",
    'Aspirin "in" naïve mice',
    (Span(19, 23, "Species", "mice"), Span(0, 7, "Chemical", "Aspirin"), Span(13, 23, "Group", "naïve mice")),
)

ABSTRACT = Passage(
    "s",
    "g",
    "pubmed",
    "AIM: Why.\nRESULTS: It did.\nINTERPRETATION: So.",
    "On it.",
    (
        Section("Why.", "AIM", "OBJECTIVE"),
        Section("It did.", "RESULTS", "RESULTS"),
        Section("So.", "INTERPRETATION", "CONCLUSIONS"),
    ),
)
TRIAL = Passage(
    "t",
    "g",
    "clinicaltrials",
    "",
    "",
    (
        Section(
            "Inclusion Criteria:\n\n* Age > 18\n* One of\n   * iron\n   * gold\n\nExclusion Criteria:\n\n1. Pregnancy",
            "Eligibility",
            "ELIGIBILITY",
        ),
        Section("female", "Sex", "SEX"),
        Section("18 Years", "Minimum age", "MINIMUM_AGE"),
    ),
)
LETTER = Pair("l", "g", "meqsum", "MESSAGE: who makes iron", "Who makes iron?")
CONTEXT = {"label": QUESTION.question, "pubmedqa_reasoning_free": QUESTION.explanation}  # else a question's contexts
GOLDEN: list[tuple[str, Record, Row]] = [
    (
        "conclusion",
        ABSTRACT,
        Row("s", "g", (), "Title: On it.\nAbstract: AIM: Why.\nRESULTS: It did.\nConclusion:", " So."),
    ),
    (
        "title",
        ABSTRACT,
        Row("s", "g", (), f"Abstract: {ABSTRACT.text}\nTitle:", " On it."),
    ),
    (
        "sections",
        ABSTRACT,
        Row(
            "s",
            "g",
            (),
            "Label each part BACKGROUND, OBJECTIVE, METHODS, RESULTS or CONCLUSIONS.\n"
            "[1] Why.\n[2] It did.\n[3] So.\nLabels:\n",
            "[1] OBJECTIVE\n[2] RESULTS\n[3] CONCLUSIONS",
        ),
    ),
    (
        "eligibility",
        TRIAL,
        Row(
            "t",
            "g",
            (),
            f"Eligibility: {TRIAL.sections[0].text}\nSex: female\nMinimum age: 18 Years\nJSON:",
            ' {"inclusion": ["Age > 18", "One of * iron * gold"], "exclusion": ["Pregnancy"], "sex": "female", '
            '"minimum_age": "18 Years", "maximum_age": null}',
        ),
    ),
    (
        "question_summary",
        LETTER,
        Row("l", "g", (), "Question:\nMESSAGE: who makes iron\n\nSummary:", " Who makes iron?"),
    ),
    (
        "entities_chat",
        MARKED,
        Row(
            "m",
            "g",
            (
                (
                    "user",
                    "List the named entities in this text as JSON, each with its type and its exact text.\n\n"
                    + MARKED.text,
                ),
                (
                    "assistant",
                    '[{"type": "Chemical", "text": "Aspirin"}, {"type": "Group", "text": "naïve mice"}, '
                    '{"type": "Species", "text": "mice"}]',
                ),
            ),
            "",
            '[{"type": "Chemical", "text": "Aspirin"}, {"type": "Group", "text": "naïve mice"}, '
            '{"type": "Species", "text": "mice"}]',
        ),
    ),
    ("text", PASSAGE, Row("p", "g", (), "", "On it.\nAIM: Why.\nIt did.")),
    ("text", UNTITLED, Row("p", "g", (), "", "Just text. ")),
    ("pubmedqa", QUESTION, Row("q", "g", (), "Abstract: One.\nTwo.\nQuestion: Does it?\nAnswer:", " no")),
    (
        "pubmedqa_reasoning_free",
        QUESTION,
        Row("q", "g", (), "Abstract: It does not.\nQuestion: Does it?\nAnswer:", " no"),
    ),
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
    ("label", QUESTION, Row("q", "g", (), "Does it?\nLabel:", " no")),
    ("ending", QUESTION, Row("q", "g", (), "Does it?", " no")),
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
    ("medqa", VIGNETTE, Row("v", "g", (), "Question: Which one?\nA. One\nB. Two\nC. Three\nD. Four\nAnswer:", " B")),
    (
        "medmcqa",
        VIGNETTE,
        Row("v", "g", (), "Question: Which one?\nChoices:\nA. One\nB. Two\nC. Three\nD. Four\nAnswer:", " B"),
    ),
    (
        "mmlu",
        SUBJECT,
        Row(
            "s",
            "g",
            (),
            "The following are multiple choice questions (with answers) about college medicine.\n\n"
            "Which?\nA. One\nB. Two\nC. Three\nD. Four\nAnswer:",
            " C",
        ),
    ),
    (
        "choice",
        QUESTION,
        Row("q", "g", (), "One.\nTwo.\nQuestion: Does it?\nA. yes\nB. no\nC. maybe\nAnswer:", " B"),
    ),
    ("choice", VIGNETTE, Row("v", "g", (), "Question: Which one?\nA. One\nB. Two\nC. Three\nD. Four\nAnswer:", " B")),
    ("cloze", QUESTION, Row("q", "g", (), "One.\nTwo.\nQuestion: Does it?\nAnswer:", " no")),
    (
        "note",
        VISIT,
        Row("n", "g", (), "Dialogue:\nDoctor: Hi.\nPatient: Hello.\n\nSection: GENHX\nNote:\n", "Well."),
    ),
    ("note", PAIR, Row("r", "g", (), "Dialogue:\nAsk \n\nNote:\n", "Say\n")),
    (
        "entities",
        MARKED,
        Row(
            "m",
            "g",
            (),
            'Text: Aspirin "in" naïve mice\nEntities:',
            ' [{"type": "Chemical", "text": "Aspirin"}, {"type": "Group", "text": "naïve mice"}, '
            '{"type": "Species", "text": "mice"}]',
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
    (
        "pair_chat_v2",
        TALK,
        Row(
            "r",
            "g",
            (("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes"), ("user", " Why? "), ("assistant", "So.")),
            "",
            "So.",
            by_base=True,
        ),
    ),
    (
        "pair_chat_v2",
        replace(PAIR, reasoning="Hm."),
        Row("r", "g", (("user", "Ask "), ("assistant", "Say\n")), "", "Say\n", by_base=True, reasoning="Hm."),
    ),
]
GOLDEN += [
    (f"{name}_v2", record, replace(row, by_base=True))
    for name, record, row in GOLDEN
    if name in ("pubmedqa_chat", "question_chat", "entities_chat")
]


@pytest.mark.parametrize(("name", "record", "row"), GOLDEN)
def test_a_template_writes_what_it_always_wrote(name: str, record: Record, row: Row) -> None:
    (found,) = render([record], name)
    assert replace(found, context=(0, 0), breaks=(), too_long="error") == row


@pytest.mark.parametrize(("name", "record", "row"), GOLDEN)
def test_what_may_be_shortened_is_the_context_and_never_the_question(name: str, record: Record, row: Row) -> None:
    (found,) = render([record], name)
    start, end = found.context
    if end:
        asked = found.turns[-2][1] if found.turns else found.prompt
        contexts = {
            Question: lambda: CONTEXT.get(name, "\n".join(record.contexts)),  # type: ignore[union-attr]
            Pair: lambda: record.input,  # type: ignore[union-attr]
            Passage: lambda: asked[start:end],
        }
        assert asked[start:end] == contexts[type(record)]()
        shorter = shortened(found, 3)
        assert shorter.completion == found.completion
        cut = shorter.turns[-2][1] if shorter.turns else shorter.prompt
        assert cut == asked[:start] + asked[start : start + 3].rstrip() + asked[end:]
    assert all(found.completion[place - 1] in "\n. " for place in found.breaks)


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


@pytest.mark.parametrize("name", [name for name, template in TEMPLATES.items() if template.options])
def test_the_completion_is_among_the_options(name: str) -> None:
    template = find_template(name)
    options: Callable[[Record], tuple[str, ...]] | None = template.options
    assert options is not None
    assert template.render(QUESTION).completion == options(QUESTION)[1]
    assert template.render(VIGNETTE).completion == options(VIGNETTE)[1]


@pytest.mark.parametrize(
    ("name", "doc_to_text"),  # the templates of lm_eval/tasks/medqa/medqa.yaml and medmcqa/utils_medmcqa.py, filled in
    [
        ("medqa", "Question: {q}\nA. {A}\nB. {B}\nC. {C}\nD. {D}\nAnswer:"),
        ("medmcqa", "Question: {q}\nChoices:\nA. {A}\nB. {B}\nC. {C}\nD. {D}\nAnswer:"),
    ],
)
def test_lettered_questions_are_worded_as_in_lm_evaluation_harness(name: str, doc_to_text: str) -> None:
    (row,) = render([VIGNETTE], name)
    assert row.prompt == doc_to_text.format(q="Which one?", A="One", B="Two", C="Three", D="Four")


def test_an_open_question_has_no_letter() -> None:
    with pytest.raises(SettingsError, match="its answer is none of them"):
        render([Question("o", "g", "medquad", "What?", "This.")], "medqa")


def test_the_wrong_kind_of_record_names_both_and_what_would_fit() -> None:
    with pytest.raises(SettingsError, match=r"'pubmedqa' takes a Question, and record p is a Passage") as caught:
        render([PASSAGE], "pubmedqa")
    assert "text" in (caught.value.fix or "")


def test_a_conversation_is_not_squeezed_into_a_pair() -> None:
    with pytest.raises(SettingsError, match="there are 3 earlier turns"):
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
        ("Yes or no", None),
        ("yes/no/maybe", None),
        ("Either yes or maybe.", None),
        ("It is not yes", None),
        ("There is no evidence for it", None),
        ("Let us see.\nIt did. So the answer is yes.", "yes"),
        ("Final answer: Maybe", "maybe"),
        ("I think so. The answer is yes.\nThe answer is no.", None),
    ],
)
def test_a_written_answer_is_read_back_or_left_open(text: str, choice: str | None) -> None:
    assert read_choice(text, ("yes", "no", "maybe")) == choice


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (" B", "B"),
        ("b", "B"),
        ("(C) ", "C"),
        ("**D.** Surgery", "D"),
        ("Option C", "C"),
        ("D Surgery", "D"),
        ("A. Aspirin", "A"),
        ("B) Aspirin and heparin, not surgery", "B"),
        ("The answer is B", "B"),
        ("the correct answer is (D).", "D"),
        ("Answer: **B**", "B"),
        ("Let us think.\nSo the answer is C.", "C"),
        ("The best option would be C", "C"),
        ("I would choose D.", "D"),
        ("surgery", "D"),
        ("Aspirin and heparin.", "B"),  # and not A, whose words it begins with
        ("A blood test", "C"),  # and not A, the article
        ("The answer is A blood test", "C"),
        ("A man came", None),
        ("a 40-year-old", None),
        ("The answer is a beta blocker", None),
        ("E", None),
        ("A or B", None),
        ("A, B", None),
        ("(A)/(B)", None),
        ("B. Surgery", None),
        ("It is not D.", None),
        ("It is Aspirin and heparin or Surgery", None),
        ("The answer is A. The answer is C.", None),
        ("", None),
    ],
)
def test_a_written_letter_is_read_back_or_left_open(text: str, letter: str | None) -> None:
    options = ("Aspirin", "Aspirin and heparin", "A blood test", "Surgery")
    assert read_letter(text, ("A", "B", "C", "D"), options) == letter


def test_options_that_read_alike_cannot_be_distinguished_by_their_words() -> None:
    assert read_letter("Both", ("A", "B"), ("Both", "Both")) is None
    assert read_letter("B. Both", ("A", "B"), ("Both", "Both")) == "B"


def test_records_that_lack_what_a_template_needs_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    rows = render([PASSAGE, ABSTRACT, UNTITLED], "conclusion")
    assert [row.uid for row in rows] == ["s"]
    assert "2 records are left out: the template conclusion needs sections, the last a conclusion" in caplog.text
    assert fitting([PASSAGE, ABSTRACT, UNTITLED], "conclusion") == [ABSTRACT]
    assert render([replace(TRIAL, sections=TRIAL.sections[1:])], "eligibility") == []


def test_a_way_of_fitting_that_the_template_has_not_is_named() -> None:
    with pytest.raises(SettingsError, match="'entities' cannot be fitted by 'trim_context'"):
        render([MARKED], "entities", "trim_context")
