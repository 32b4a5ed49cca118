"""Each scoring's work: the table that says which module does what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lora_med.data.record import Record
from lora_med.errors import SettingsError
from lora_med.evaluation.measures import Measure, text_measures
from lora_med.evaluation.scorer import Work
from lora_med.evaluation.scorers.choice_measures import ChoiceLayout, option_measures
from lora_med.evaluation.scorers.choice_scorer import ChoiceWork
from lora_med.evaluation.scorers.entity_answers import entity_measures
from lora_med.evaluation.scorers.entity_scorer import EntityWork
from lora_med.evaluation.scorers.text_scorer import TextWork
from lora_med.evaluation.scorers.writing_answers import BERT, writing_measures
from lora_med.evaluation.scorers.writing_scorer import WritingWork
from lora_med.evaluation.tasks import Scoring
from lora_med.metrics.overlap import read_encoder
from lora_med.models.base import Base
from lora_med.prompts.few_shot import Shots, draw_shots
from lora_med.prompts.render import fitting


@dataclass(frozen=True)
class Asking:
    """How items are put to a model beyond what the template says.

    `shots` is how many solved examples stand before each question, `rotate` asks it in every order of its options, and
    `constrained` holds written entities to the JSON list. `bertscore` is `FOLDER:LAYER` of an encoder by which written
    texts are compared with their references.
    """

    shots: int = 0
    rotate: bool = False
    constrained: bool = False
    bertscore: str = ""


@dataclass(frozen=True)
class Given:
    """What a work is made from: items to score, and the other parts for what may be learned from them alone."""

    base: Base
    context: int
    records: Sequence[Record]
    template: str
    asking: Asking
    training: Sequence[Record]
    validation: Sequence[Record]
    seed: int

    @property
    def drawn(self) -> Shots | None:
        """The solved examples, from the training part."""
        if not self.asking.shots:
            return None
        return draw_shots(self.training, self.template, self.asking.shots, seed=self.seed)


def _text(given: Given) -> Work:
    return TextWork(given.base, given.records, given.template, given.context)


def _choice(given: Given, *, written: bool = False) -> Work:
    return ChoiceWork(
        given.base,
        given.records,
        given.template,
        given.context,
        written=written,
        shots=given.drawn,
        rotate=given.asking.rotate,
        validation=fitting(given.validation, given.template),
    )


def _written_choice(given: Given) -> Work:
    return _choice(given, written=True)


def _entities(given: Given) -> Work:
    return EntityWork(
        given.base,
        given.records,
        given.template,
        given.context,
        constrained=given.asking.constrained,
        training=given.training,
    )


def _entity_layout(layout: Mapping[str, Any]) -> tuple[Measure, ...]:
    return entity_measures(tuple(layout["types"]), with_unseen=layout["unseen"])


def _writing(given: Given) -> Work:
    bert = read_encoder(given.asking.bertscore) if given.asking.bertscore else None
    return WritingWork(given.base, given.records, given.template, given.context, training=given.training, bert=bert)


def _writing_layout(layout: Mapping[str, Any]) -> tuple[Measure, ...]:
    return writing_measures(with_bert=BERT in layout["columns"])


def _choice_layout(layout: Mapping[str, Any]) -> tuple[Measure, ...]:
    labels, present, subjects = (tuple(layout[name]) for name in ("labels", "present", "subjects"))
    return option_measures(
        ChoiceLayout(labels, present, layout["lengths"], layout["rotated"], layout["written"], subjects)
    )


@dataclass(frozen=True)
class _Kind:
    make: Callable[[Given], Work]
    measures: Callable[[Mapping[str, Any]], tuple[Measure, ...]]
    asking: frozenset[str] = frozenset()
    learns: bool = False


_KINDS: dict[Scoring, _Kind] = {
    "text": _Kind(_text, lambda layout: text_measures(layout["sections"])),
    "choice": _Kind(_choice, _choice_layout, frozenset({"shots", "rotate"})),
    "written_choice": _Kind(_written_choice, _choice_layout, frozenset({"shots", "rotate"})),
    "entities": _Kind(_entities, _entity_layout, frozenset({"constrained"}), learns=True),
    "writing": _Kind(_writing, _writing_layout, frozenset({"bertscore"}), learns=True),
}


def check_asking(scoring: Scoring, asking: Asking) -> None:
    """Refuse what a scoring does not know.

    Raises:
        SettingsError: such as solved examples for running text.
        InputMissingError: no encoder there.
    """
    for name, asked in asdict(asking).items():
        if asked and name not in _KINDS[scoring].asking:
            raise SettingsError(f"{name} does nothing for a task scored as {scoring}", fix=f"leave --{name} out")
    if asking.bertscore:
        read_encoder(asking.bertscore)


def make_work(scoring: Scoring, given: Given) -> Work:
    """The items of one scoring, ready to be answered.

    Raises:
        SettingsError: something is asked that this scoring does not know.
    """
    check_asking(scoring, given.asking)
    return _KINDS[scoring].make(given)


def measures_of(scoring: Scoring, layout: Mapping[str, Any]) -> tuple[Measure, ...]:
    """What is measured of tables with this layout, as an earlier work told it."""
    return _KINDS[scoring].measures(layout)


def learns(scoring: Scoring, asking: Asking) -> bool:
    """Whether training records are of use: for solved examples, or for what is known before a model is asked."""
    return _KINDS[scoring].learns or asking.shots > 0
