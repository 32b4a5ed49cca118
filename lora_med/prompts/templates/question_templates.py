"""Questions: PubMedQA, MedQA, MedMCQA and MMLU in lm-evaluation-harness's wording, byte for byte; conversations."""

from __future__ import annotations

from dataclasses import replace

from lora_med.data.record import Question
from lora_med.errors import SettingsError
from lora_med.prompts.row import Row, chat, prompted

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
BEFORE_ABSTRACT = "Abstract: "


def _abstract_and_question(record: Question) -> str:
    return "{}{}\nQuestion: {}\nAnswer:".format(BEFORE_ABSTRACT, "\n".join(record.contexts), record.question)


def _context(record: Question, before: str) -> tuple[int, int]:
    """The range of the contexts after `before`, in characters."""
    return len(before), len(before) + len("\n".join(record.contexts))


def _lettered(record: Question) -> list[str]:
    if len(record.options) > len(LETTERS):
        raise SettingsError(
            f"record {record.uid} has {len(record.options)} options, and there are {len(LETTERS)} letters",
            where="data.template",
            fix="leave such records out",
        )
    return [f"{letter}. {option}" for letter, option in zip(LETTERS, record.options, strict=False)]


def right_letter(record: Question) -> str:
    """The letter of the right option.

    Raises:
        SettingsError: the answer is none of the options, or there are more than letters.
    """
    lettered = _lettered(record)
    if record.answer not in record.options:
        raise SettingsError(
            f"record {record.uid} has {len(record.options)} options and its answer is none of them",
            where="data.template",
            fix="data.template=question_chat takes open answers",
        )
    return lettered[record.right_option][0]


def pubmedqa(record: Question) -> Row:
    """Abstract, question, ` yes`, ` no` or ` maybe`."""
    context = _context(record, BEFORE_ABSTRACT)
    return prompted(record, _abstract_and_question(record), f" {record.answer}", context)


def has_conclusion(record: Question) -> bool:
    """Whether the record has the conclusion that answers the question."""
    return bool(record.explanation)


def pubmedqa_reasoning_free(record: Question) -> Row:
    """The same with the conclusion in place of the abstract: the text states the answer."""
    context = (len(BEFORE_ABSTRACT), len(BEFORE_ABSTRACT) + len(record.explanation))
    prompt = f"{BEFORE_ABSTRACT}{record.explanation}\nQuestion: {record.question}\nAnswer:"
    return prompted(record, prompt, f" {record.answer}", context)


def spaced_options(record: Question) -> tuple[str, ...]:
    """The options as `pubmedqa` completes them."""
    return tuple(f" {option}" for option in record.options)


def pubmedqa_chat(record: Question) -> Row:
    """The same as a conversation."""
    question = _abstract_and_question(record).removesuffix("Answer:") + "Answer with yes, no or maybe."
    return chat(record, (("user", question),), record.answer, _context(record, BEFORE_ABSTRACT))


def pubmedqa_chat_v2(record: Question) -> Row:
    """The same as the base's own chat template renders it."""
    return replace(pubmedqa_chat(record), by_base=True)


def bare_options(record: Question) -> tuple[str, ...]:
    """The options as they are."""
    return record.options


def medqa(record: Question) -> Row:
    """Question, lettered options, the letter."""
    prompt = "\n".join([f"Question: {record.question}", *_lettered(record), "Answer:"])
    return prompted(record, prompt, f" {right_letter(record)}")


def medmcqa(record: Question) -> Row:
    """Question, `Choices:`, lettered options, the letter."""
    prompt = "\n".join([f"Question: {record.question}", "Choices:", *_lettered(record), "Answer:"])
    return prompted(record, prompt, f" {right_letter(record)}")


def mmlu_description(record: Question) -> str:
    """The text written once before all questions of a subject."""
    subject = record.subject.replace("_", " ")
    return f"The following are multiple choice questions (with answers) about {subject}.\n\n"


def mmlu(record: Question) -> Row:
    """The description, question, lettered options, the letter."""
    question = "\n".join([record.question.strip(), *_lettered(record), "Answer:"])
    return prompted(record, mmlu_description(record) + question, f" {right_letter(record)}")


def choice(record: Question) -> Row:
    """Contexts if there are any, question, lettered options, the letter."""
    lines = [*record.contexts, f"Question: {record.question}", *_lettered(record), "Answer:"]
    return prompted(record, "\n".join(lines), f" {right_letter(record)}", _context(record, ""))


def cloze(record: Question) -> Row:
    """Contexts if there are any, question, the answer in its own words; the options are not shown."""
    lines = [*record.contexts, f"Question: {record.question}", "Answer:"]
    return prompted(record, "\n".join(lines), f" {record.answer}", _context(record, ""))


def label(record: Question) -> Row:
    """The text, then its class."""
    return prompted(record, f"{record.question}\nLabel:", f" {record.answer}", (0, len(record.question)))


def ending(record: Question) -> Row:
    """The question as a sentence's beginning, and the answer that ends it."""
    return prompted(record, record.question, f" {record.answer}")


def has_subject(record: Question) -> bool:
    """Whether the question has a subject."""
    return bool(record.subject)


def letters(record: Question) -> tuple[str, ...]:
    """A letter for each option, as the lettered templates complete them."""
    return tuple(f" {letter}" for letter in LETTERS[: len(record.options)])


def question_chat(record: Question) -> Row:
    """Contexts, question and lettered options as a conversation; the answer in its own words."""
    lines = [*record.contexts, record.question, *_lettered(record)]
    return chat(record, (("user", "\n".join(lines)),), record.answer, _context(record, ""))


def question_chat_v2(record: Question) -> Row:
    """The same as the base's own chat template renders it."""
    return replace(question_chat(record), by_base=True)
