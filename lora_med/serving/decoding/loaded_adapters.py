"""The adapters that can be asked: each name's present version, known by its content and not by its name."""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lora_med.adapters.store.card import CARD
from lora_med.adapters.store.published import AdapterFiles, open_files
from lora_med.adapters.store.store import CHAT_TEMPLATE, CONFIG, WEIGHTS
from lora_med.errors import IntegrityError, LoraMedError
from lora_med.models.base import Base
from lora_med.models.generation import stop_ids
from lora_med.models.tokenizer import with_template
from lora_med.models.tokens.numbering import check_numbers
from lora_med.prompts.encoder import Encoder
from lora_med.prompts.row import Row
from lora_med.prompts.templates.templates import TEMPLATES, is_chat
from lora_med.prompts.tokens_and_labels import start_ids
from lora_med.serving.decoding.answer_form import AnswerForms
from lora_med.serving.decoding.identity import digest
from lora_med.serving.requests import BadRequest, Loaded, NotLoaded

ROLES = ("system", "user", "assistant")


@dataclass(eq=False)
class Version:
    """An adapter as it was loaded, or the bare base: what makes its prompts, and what its weights are called.

    `key` is its name in the adapter pool, None for the base. `folder` holds its files, which are read again, and
    compared, each time it comes back into memory. `tokenizer` decodes. Prompts are made by `encoding`, a copy, because
    its settings change while it encodes; all versions of an engine share one `lock` for that. No token has more
    characters than `longest_token`.
    """

    loaded: Loaded | None
    key: str | None
    folder: Path | None
    template: str
    tokenizer: Any
    encoding: Any
    words: int
    ends: tuple[int, ...]
    lock: threading.Lock
    longest_token: int
    forms: AnswerForms = field(init=False)
    _encoder: Encoder = field(init=False)
    _texts: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.forms = AnswerForms(self.tokenizer, self.words, self.ends)
        with self.lock:
            self._encoder = Encoder(self.encoding)

    @property
    def identity(self) -> str | None:
        """The digest of the adapter's content; None for the bare base."""
        return None if self.loaded is None else self.loaded.identity

    @cached_property
    def template_digest(self) -> str:
        """The digest of what turns a conversation into tokens."""
        return digest("template", name=self.template, text=self.tokenizer.chat_template or None)

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        """The tokens that an answer to these messages starts from, by the template that the adapter was trained with.

        Raises:
            BadRequest: a role that is not known, no message, or a conversation that the template refuses.
        """
        for number, message in enumerate(messages):
            if message.get("role") not in ROLES or not isinstance(message.get("content"), str):
                raise BadRequest(
                    f"message {number} needs a role of {', '.join(ROLES)} and a text as its content",
                    where=f"messages[{number}]",
                )
        if not messages or messages[-1]["role"] == "assistant":
            raise BadRequest("the last message is not the user's", where="messages", fix="end with a user's message")
        by_base = TEMPLATES[self.template].by_base if is_chat(self.template) else True
        turns = (*((message["role"], message["content"]) for message in messages), ("assistant", ""))
        return self._encode(Row("request", "request", turns, "", "", by_base=by_base))

    def encode_text(self, text: str) -> tuple[int, ...]:
        """The tokens of a text that is to be continued; control tokens typed in it are text."""
        return self._encode(Row("request", "request", (), text, ""))

    def _encode(self, row: Row) -> tuple[int, ...]:
        try:
            with self.lock:
                return tuple(start_ids(row, self._encoder))
        except LoraMedError as error:
            raise BadRequest(error.what, where="messages" if row.turns else "prompt", fix=error.fix) from error

    def text_of(self, token: int) -> str:
        """The text of a token alone, with the blank that it begins with."""
        if token not in self._texts:
            anchor = self.ends[0] if self.ends else token
            both, before = (self.tokenizer.decode(ids) for ids in ([anchor, token], [anchor]))
            self._texts[token] = both[len(before) :] if both.startswith(before) else self.tokenizer.decode([token])
        return self._texts[token]


def base_version(base: Base) -> Version:
    """The bare base."""
    words = base.model.get_output_embeddings().weight.shape[0]
    ends = tuple(stop_ids(base.model, base.tokenizer))
    encoding = copy.deepcopy(base.tokenizer)
    longest = max(map(len, base.tokenizer.get_vocab()), default=1)
    return Version(None, None, None, "", base.tokenizer, encoding, words, ends, threading.Lock(), longest)


def version_of(name: str, files: AdapterFiles, bare: Version) -> Version:
    """An adapter under a name. Its prompts are made with its own chat template and with its own trained tokens only.

    Raises:
        IntegrityError: its files do not fit each other.
        SettingsError: its trained tokens do not fit the base.
    """
    identity = identity_of(files)
    loaded = Loaded(name, files.card.files[WEIGHTS], identity)
    pair = [bare.tokenizer, bare.encoding]
    if files.card.tokens:
        with bare.lock:
            pair = [check_numbers(bare.encoding, files.card.tokens) for _ in pair]
    if files.chat_template is not None:
        pair = [with_template(tokenizer, files.chat_template) for tokenizer in pair]
    words = max([bare.words, *(number + 1 for number in files.card.tokens.values())])
    longest = max([bare.longest_token, *map(len, files.card.tokens)])
    key, template = f"{name}@{identity[:32]}", files.card.template
    return Version(loaded, key, files.folder, template, pair[0], pair[1], words, bare.ends, bare.lock, longest)


def identity_of(files: AdapterFiles) -> str:
    """The digest of everything in an adapter that shapes an answer: weights, settings, template and trained tokens.

    The files' own hashes are in the card; whoever opened them has compared these with the bytes.
    """
    hashes = files.card.files
    return digest(
        "adapter",
        weights=hashes[WEIGHTS],
        settings=hashes[CONFIG],
        chat_template=hashes.get(CHAT_TEMPLATE),
        template=files.card.template,
        tokens=repr(sorted(files.card.tokens.items())),
    )


class LoadedAdapters:
    """Names and their versions; thread-safe. A version that was replaced lives as long as a request needs it."""

    def __init__(self, bare: Version) -> None:
        self._bare = bare
        self._lock = threading.Lock()
        self._versions: dict[str, Version] = {}
        self._out: dict[str, Loaded] = {}
        self._by_key: weakref.WeakValueDictionary[str, Version] = weakref.WeakValueDictionary()

    def get(self, name: str | None) -> Version:
        """The present version of a name; None is the bare base.

        Raises:
            NotLoaded: no adapter has the name, or it is out of service.
        """
        if name is None:
            return self._bare
        with self._lock:
            if name in self._out:
                raise NotLoaded(
                    f"adapter {name!r} is out of service: its answers were not finite",
                    fix="train it again, and load it again",
                )
            if name not in self._versions:
                raise NotLoaded(f"no adapter {name!r} is loaded")
            return self._versions[name]

    def register(self, version: Version) -> None:
        """Make a version known by its key, so that `read` finds its files."""
        assert version.key is not None
        self._by_key[version.key] = version

    def put(self, version: Version) -> Version | None:
        """Let the version answer to its name from now on; returns the version before."""
        assert version.loaded is not None
        with self._lock:
            self._out.pop(version.loaded.name, None)
            before = self._versions.get(version.loaded.name)
            self._versions[version.loaded.name] = version
            return before

    def remove(self, name: str) -> Version | None:
        """Let nothing answer to the name; returns the version before, None if it was out of service.

        Raises:
            NotLoaded: no adapter has the name.
        """
        with self._lock:
            if name not in self._versions and name not in self._out:
                raise NotLoaded(f"no adapter {name!r} is loaded")
            self._out.pop(name, None)
            return self._versions.pop(name, None)

    def take_out(self, version: Version) -> None:
        """Take a version out of service; a later one under its name is not."""
        if version.loaded is None:
            return
        with self._lock:
            if self._versions.get(version.loaded.name) is version:
                del self._versions[version.loaded.name]
                self._out[version.loaded.name] = version.loaded

    def is_current(self, version: Version) -> bool:
        """Whether the version answers to its name."""
        if version.loaded is None:
            return True
        with self._lock:
            return self._versions.get(version.loaded.name) is version

    def all(self) -> list[Loaded]:
        """What is loaded and in service, by name."""
        with self._lock:
            found = [version.loaded for version in self._versions.values() if version.loaded is not None]
        return sorted(found, key=lambda loaded: loaded.name)

    def out_of_service(self) -> tuple[Loaded, ...]:
        """What was loaded and gave numbers that are not finite."""
        with self._lock:
            return tuple(self._out.values())

    def read(self, key: str) -> AdapterFiles:
        """The files of the version with this key, if they are still what was loaded.

        Raises:
            IntegrityError: they have changed since.
        """
        version = self._by_key[key]
        assert version.folder is not None and version.loaded is not None
        files = open_files(version.folder)
        if identity_of(files) != version.loaded.identity:
            raise IntegrityError(
                f"the files of adapter {version.loaded.name!r} are not those that were loaded",
                where=str(version.folder / CARD),
                fix="load it again",
            )
        return files
