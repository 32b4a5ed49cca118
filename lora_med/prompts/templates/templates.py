"""Prompt templates: pure functions from a record to a row. A released template is frozen; a change is a new `_v2`.

The table below lists all of them. `pubmedqa`, `medqa`, `medmcqa` and `mmlu` are worded as lm-evaluation-harness words
them, byte for byte, so that scores compare. Those named `_chat` put contents between segments of the base's chat
template, as adapters of version 0.1 were trained; those named `_chat_v2` have the base render the whole conversation.
"""

from __future__ import annotations

from lora_med.config.near_names import unknown
from lora_med.data.record import Annotated, Pair, Passage, Question
from lora_med.errors import SettingsError
from lora_med.prompts.row import RUNNING, WITH_CONTEXT, Template
from lora_med.prompts.templates import entity_json as entities
from lora_med.prompts.templates import passage_templates as passages
from lora_med.prompts.templates import question_templates as questions
from lora_med.prompts.templates import text_templates as texts

_ALL = (
    Template(
        "text",
        "title and labeled sections as plain text, every token trained",
        Passage,
        texts.text,
        too_long=RUNNING,
    ),
    Template(
        "conclusion",
        "a structured abstract without its conclusion, then the conclusion",
        Passage,
        passages.conclusion,
        too_long=WITH_CONTEXT,
        needs="sections, the last a conclusion",
        fits=passages.has_conclusion,
    ),
    Template(
        "title",
        "a text, then its title",
        Passage,
        passages.title,
        too_long=WITH_CONTEXT,
        needs="a title and a text",
        fits=passages.has_title,
    ),
    Template(
        "sections",
        "the sections of an abstract without their labels, then one label a line",
        Passage,
        passages.sections,
        needs="sections that all have one of the five categories",
        fits=passages.has_labels,
    ),
    Template(
        "eligibility",
        "a trial's eligibility criteria, then the same as JSON",
        Passage,
        passages.eligibility,
        needs="eligibility criteria with at least one item",
        fits=passages.has_eligibility,
    ),
    Template(
        "pubmedqa",
        "abstract, question, `Answer:`, as lm-evaluation-harness words it",
        Question,
        questions.pubmedqa,
        questions.spaced_options,
        too_long=WITH_CONTEXT,
    ),
    Template(
        "pubmedqa_chat",
        "the same as a conversation",
        Question,
        questions.pubmedqa_chat,
        questions.bare_options,
        too_long=WITH_CONTEXT,
        chat=True,
    ),
    Template(
        "pubmedqa_chat_v2",
        "the same as the base's own chat template renders it",
        Question,
        questions.pubmedqa_chat_v2,
        questions.bare_options,
        too_long=WITH_CONTEXT,
        chat=True,
        by_base=True,
    ),
    Template(
        "pubmedqa_reasoning_free",
        "the conclusion in place of the abstract, which says the answer: reasoning-free",
        Question,
        questions.pubmedqa_reasoning_free,
        questions.spaced_options,
        too_long=WITH_CONTEXT,
        needs="the conclusion as explanation",
        fits=questions.has_conclusion,
    ),
    Template(
        "medqa",
        "question and lettered options, the letter, as lm-evaluation-harness words it",
        Question,
        questions.medqa,
        questions.letters,
        lettered=True,
    ),
    Template(
        "medmcqa",
        "the same, with `Choices:` before them",
        Question,
        questions.medmcqa,
        questions.letters,
        lettered=True,
    ),
    Template(
        "mmlu",
        "what the questions are about, question, lettered options, the letter, as lm-evaluation-harness words it",
        Question,
        questions.mmlu,
        questions.letters,
        needs="a subject",
        fits=questions.has_subject,
        description=questions.mmlu_description,
        lettered=True,
    ),
    Template(
        "choice",
        "contexts, question and lettered options, the letter",
        Question,
        questions.choice,
        questions.letters,
        too_long=WITH_CONTEXT,
        lettered=True,
    ),
    Template(
        "cloze",
        "contexts and question, the answer in its own words",
        Question,
        questions.cloze,
        questions.spaced_options,
        too_long=WITH_CONTEXT,
    ),
    Template(
        "label",
        "a text, `Label:`, its class",
        Question,
        questions.label,
        questions.spaced_options,
        too_long=WITH_CONTEXT,
    ),
    Template(
        "ending",
        "a sentence's beginning, then its ending",
        Question,
        questions.ending,
        questions.spaced_options,
    ),
    Template(
        "question_chat",
        "contexts, question and lettered options as a conversation",
        Question,
        questions.question_chat,
        too_long=WITH_CONTEXT,
        chat=True,
    ),
    Template(
        "question_chat_v2",
        "the same as the base's own chat template renders it",
        Question,
        questions.question_chat_v2,
        too_long=WITH_CONTEXT,
        chat=True,
        by_base=True,
    ),
    Template("pair", "the prompt and its completion as they are, nothing between them", Pair, texts.pair),
    Template("pair_chat", "a conversation whose last answer is trained", Pair, texts.pair_chat, chat=True),
    Template(
        "pair_chat_v2",
        "a conversation as the base's own chat template renders it, contents as they are",
        Pair,
        texts.pair_chat_v2,
        chat=True,
        by_base=True,
    ),
    Template(
        "note",
        "a dialogue, the section wanted if there is one, and the note written from it",
        Pair,
        texts.note,
        too_long=WITH_CONTEXT,
    ),
    Template(
        "question_summary",
        "a consumer's health question, then its summary in one sentence",
        Pair,
        texts.question_summary,
        too_long=WITH_CONTEXT,
    ),
    Template("entities", "a text, and its named entities as a JSON list", Annotated, entities.ask),
    Template("entities_chat", "the same as a conversation", Annotated, entities.ask_chat, chat=True),
    Template(
        "entities_chat_v2",
        "the same as the base's own chat template renders it",
        Annotated,
        entities.ask_chat_v2,
        chat=True,
        by_base=True,
    ),
)
TEMPLATES: dict[str, Template] = {template.name: template for template in _ALL}


def find_template(name: str) -> Template:
    """The template called `name`.

    Raises:
        SettingsError: there is none; the message gives the nearest name.
    """
    if name not in TEMPLATES:
        raise SettingsError(unknown("prompt template", name, TEMPLATES), where="data.template")
    return TEMPLATES[name]


def is_chat(name: str) -> bool:
    """Whether `name` is a template of conversations; a name that is in no table is not."""
    return name in TEMPLATES and TEMPLATES[name].chat
