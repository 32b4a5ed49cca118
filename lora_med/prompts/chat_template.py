"""The chat template of a run: the base's own, the user's, or for a base without one the plain one below.

A template that is not the base's own belongs to the adapter, which carries it: generation, scores, a merged model and
exports render as training did. A thinking switch is a default written at the head of the template, so it travels too;
who passes the variable to the template overrides it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lora_med.errors import DataError, InputMissingError, LoraMedError, SettingsError
from lora_med.models.limits.budget import name_template
from lora_med.models.tokenizer import with_template
from lora_med.prompts.conversation import render_conversation
from lora_med.prompts.encoder import Encoder
from lora_med.prompts.row import Row
from lora_med.prompts.templates.templates import is_chat

PLAIN = (
    "{% for message in messages %}{{ message['role'] | capitalize + ': ' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
SWITCHES = ("enable_thinking", "thinking")
QUESTION, ANSWER = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
SAMPLE = Row("sample", "sample", (("user", "Why?"), ("assistant", "So.")), "", "So.", by_base=True)
logger = logging.getLogger(__name__)


def tokenizer_of_run(
    tokenizer: Any, templates: Iterable[str], *, file: str | None, enable_thinking: bool | None
) -> Any:
    """The tokenizer with the chat template of a run; see `own_template`."""
    text = own_template(tokenizer, templates, file=file, enable_thinking=enable_thinking)
    return tokenizer if text is None else with_template(tokenizer, text)


def own_template(
    tokenizer: Any, templates: Iterable[str], *, file: str | None, enable_thinking: bool | None
) -> str | None:
    """The checked chat template that takes the place of the tokenizer's own; None if its own is used.

    Args:
        templates: names of the prompt templates; for a conversation a tokenizer without a template gets `PLAIN`.
        file: the user's template, a Jinja file.
        enable_thinking: the default of the template's thinking switch; None leaves it.

    Raises:
        InputMissingError: no such file.
        SettingsError: the template cannot be read, does not render a question and its answer, or does not end the
            answer; or it has no thinking switch.
    """
    chats = any(map(is_chat, templates))
    text = None if file is None else read_template(file)
    if text is None and chats and not tokenizer.chat_template:
        logger.info("the base has no chat template: conversations are lines of `User:` and `Assistant:`")
        text = ("{{ bos_token }}" if Encoder(tokenizer).bos else "") + PLAIN
    if text is not None:
        check_template(with_template(tokenizer, text), where=file or "model.base")
    if enable_thinking is not None:
        text = _with_thinking(tokenizer if text is None else with_template(tokenizer, text), enable_thinking)
    if chats:
        _warn(tokenizer if text is None else with_template(tokenizer, text))
    return text


def read_template(file: str) -> str:
    """The text of a template file.

    Raises:
        InputMissingError: there is no such file.
        SettingsError: it is not UTF-8, or empty.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise InputMissingError(f"no file {file!r}", where="model.chat_template", fix="name a Jinja file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError("the chat template is not UTF-8", where=file, fix="save it as UTF-8") from error
    if not text.strip():
        raise SettingsError("the chat template is empty", where=file, fix="model.chat_template to another file")
    name_template(text, file)
    return text


def check_template(tokenizer: Any, *, where: str) -> None:
    """Refuse a chat template that would not train a conversation.

    Raises:
        SettingsError: it has an error of syntax, does not render a question and its answer, or does not end the answer.
    """
    from jinja2 import TemplateSyntaxError

    try:
        text = tokenizer.apply_chat_template([QUESTION, ANSWER], tokenize=False)
    except TemplateSyntaxError as error:
        raise SettingsError(
            f"line {error.lineno} of the chat template: {error.message}", where=where, fix="correct it"
        ) from error
    except LoraMedError:  # it exceeds the limits
        raise
    except Exception as error:  # a template is a program of its own and may raise anything
        raise SettingsError(
            f"the chat template does not render a question and its answer ({type(error).__name__}: {error})",
            where=where,
            fix="it gets `messages`, each with `role` and `content`, and `add_generation_prompt`",
        ) from error
    absent = [message["role"] for message in (QUESTION, ANSWER) if message["content"] not in text]
    if absent:
        raise SettingsError(f"the chat template leaves out the turn of the {absent[0]}", where=where, fix="write it")
    try:
        unended = render_conversation(SAMPLE, Encoder(tokenizer)).needs_eos
    except DataError as error:
        raise SettingsError(error.what, where=where, fix="write each turn where it stands") from error
    if unended:
        raise SettingsError(
            "no control token follows the assistant's content, so a model would not learn to stop",
            where=where,
            fix="write the token that ends a turn after it, such as {{ eos_token }}",
        )


def _with_thinking(tokenizer: Any, value: bool) -> str:
    """The tokenizer's template with a default for its thinking switch.

    Raises:
        SettingsError: it has none.
    """
    name = next((name for name in SWITCHES if tokenizer.chat_template and _switches(tokenizer, name)), None)
    if name is None:
        raise SettingsError(
            f"the chat template has no thinking switch ({' or '.join(SWITCHES)})",
            where="model.enable_thinking",
            fix="leave it out",
        )
    default = f"{{% if {name} is not defined %}}{{% set {name} = {str(value).lower()} %}}{{% endif +%}}"
    return default + tokenizer.get_chat_template()


def _switches(tokenizer: Any, name: str) -> bool:
    """Whether the template writes something else if the variable is true than if it is false."""

    def written(value: bool) -> tuple[str, str]:
        options: dict[str, Any] = {"tokenize": False, name: value}
        start = tokenizer.apply_chat_template([QUESTION], add_generation_prompt=True, **options)
        return start, tokenizer.apply_chat_template([QUESTION, ANSWER], **options)

    try:
        return written(True) != written(False)
    except LoraMedError:
        raise
    except Exception:  # a template is a program of its own and may raise anything; its rows name it later
        return False


def _warn(tokenizer: Any) -> None:
    """Report what the template does that a reader of the adapter's scores should know."""
    if "strftime_now" in str(tokenizer.chat_template):
        logger.warning("the base's chat template writes today's date into conversations: rows differ from day to day")
    try:
        start = tokenizer.apply_chat_template([QUESTION], tokenize=False, add_generation_prompt=True)
        text = tokenizer.apply_chat_template([QUESTION, ANSWER], tokenize=False)
    except LoraMedError:
        raise
    except Exception:  # as above
        return
    if not text.startswith(start):
        logger.warning(
            "the base's chat template begins a new answer with text that it does not write before a given one: "
            "the adapter learns answers without it (model.enable_thinking=false or model.chat_template=FILE may help)"
        )
