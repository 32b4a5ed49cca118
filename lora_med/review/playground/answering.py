"""What the playground needs of whatever answers: its subjects, and for a prompt one running answer of each.

The pages know this protocol and no engine. An answer is taken part by part, without waiting, so that one event loop
serves every reader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Form = Literal["trained", "chat", "plain"]
FORMS: dict[Form, str] = {
    "trained": "as in training; the base as the first adapter",
    "chat": "as a turn of a chat",
    "plain": "as text to continue",
}
MOST_ADAPTERS = 4
MOST_PROMPT = 20_000  # characters
MOST_TOKENS, USUAL_TOKENS = 512, 128  # of one answer


@dataclass(frozen=True)
class PlaygroundSubject:
    """The base or an adapter, as a reader chooses it; `access` is None for a base without a stated class."""

    name: str
    is_base: bool
    access: str | None


@dataclass(frozen=True)
class PlaygroundPrompt:
    """A prompt for the subjects at these positions; each answer has at most `most_tokens`."""

    text: str
    subjects: tuple[int, ...]
    form: Form = "trained"
    most_tokens: int = USUAL_TOKENS


@dataclass(frozen=True)
class AnswerPart:
    """What came of an answer since it was last asked: text, and at its end a sentence on who answered.

    `problem` says why there is no answer, or not all of it.
    """

    text: str = ""
    end: str = ""
    problem: str = ""

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return bool(self.end or self.problem)


class RunningText(Protocol):
    """An answer in progress. Thread-safe."""

    def on_part(self, call: Callable[[], None]) -> None:
        """Call `call()`, from any thread, whenever a part can be taken: it must return at once."""
        ...

    def take(self) -> AnswerPart | None:
        """What has come; None if nothing has."""
        ...

    def cancel(self) -> None:
        """Stop: nobody reads the rest."""
        ...


class Answering(Protocol):
    """A base and its adapters, ready to answer."""

    @property
    def subjects(self) -> Sequence[PlaygroundSubject]:
        """The base first."""
        ...

    def ask(self, prompt: PlaygroundPrompt) -> list[RunningText]:
        """One running answer for each chosen subject; one that cannot begin has its problem as its only part.

        One thread calls it at a time.
        """
        ...
