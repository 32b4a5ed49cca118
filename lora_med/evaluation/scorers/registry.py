"""The table of scorers: which module scores what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lora_med.data.heldout_records import HeldOutRecords
from lora_med.data.record import Record
from lora_med.errors import SettingsError
from lora_med.evaluation.eval_options import EvalOptions, PromptOptions
from lora_med.evaluation.measures import Measure, text_measures
from lora_med.evaluation.scorer import Scorer
from lora_med.evaluation.scorers.choice_measures import ChoiceLayout, option_measures
from lora_med.evaluation.scorers.choice_scorer import ChoiceScorer
from lora_med.evaluation.scorers.entity_answers import entity_measures
from lora_med.evaluation.scorers.entity_scorer import EntityScorer
from lora_med.evaluation.scorers.text_scorer import TextScorer
from lora_med.evaluation.scorers.writing_answers import BERT, writing_measures
from lora_med.evaluation.scorers.writing_scorer import WritingScorer
from lora_med.evaluation.tasks import Scoring
from lora_med.metrics.overlap import read_encoder
from lora_med.models.base import Base
from lora_med.prompts.few_shot import Shots, draw_shots
from lora_med.prompts.render import fitting


@dataclass(frozen=True)
class ScorerInputs:
    """What a scorer is made from: the base, its context in tokens, the held-out records and the options."""

    base: Base
    context: int
    heldout: HeldOutRecords
    options: EvalOptions

    @property
    def records(self) -> tuple[Record, ...]:
        """The records to score."""
        return self.heldout.records

    @property
    def template(self) -> str:
        """The template that words them."""
        return self.options.template

    @property
    def solved_examples(self) -> Shots | None:
        """The solved examples, drawn from the training records."""
        shots = self.options.prompt_options.shots
        if not shots:
            return None
        return draw_shots(self.heldout.training, self.template, shots, seed=self.options.seed)


def _text(inputs: ScorerInputs) -> Scorer:
    return TextScorer(inputs.base, inputs.records, inputs.template, inputs.context)


def _choice(inputs: ScorerInputs, *, written: bool = False) -> Scorer:
    return ChoiceScorer(
        inputs.base,
        inputs.records,
        inputs.template,
        inputs.context,
        written=written,
        shots=inputs.solved_examples,
        rotate=inputs.options.prompt_options.rotate,
        validation=fitting(inputs.heldout.validation, inputs.template),
    )


def _written_choice(inputs: ScorerInputs) -> Scorer:
    return _choice(inputs, written=True)


def _entities(inputs: ScorerInputs) -> Scorer:
    return EntityScorer(
        inputs.base,
        inputs.records,
        inputs.template,
        inputs.context,
        constrained=inputs.options.prompt_options.constrained,
        training=inputs.heldout.training,
    )


def _entity_layout(layout: Mapping[str, Any]) -> tuple[Measure, ...]:
    return entity_measures(tuple(layout["types"]), with_unseen=layout["unseen"])


def _writing(inputs: ScorerInputs) -> Scorer:
    bert = read_encoder(inputs.options.prompt_options.bertscore) if inputs.options.prompt_options.bertscore else None
    return WritingScorer(
        inputs.base, inputs.records, inputs.template, inputs.context, training=inputs.heldout.training, bert=bert
    )


def _writing_layout(layout: Mapping[str, Any]) -> tuple[Measure, ...]:
    return writing_measures(with_bert=BERT in layout["columns"])


def _choice_layout(layout: Mapping[str, Any]) -> tuple[Measure, ...]:
    labels, present, subjects = (tuple(layout[name]) for name in ("labels", "present", "subjects"))
    return option_measures(
        ChoiceLayout(labels, present, layout["lengths"], layout["rotated"], layout["written"], subjects)
    )


@dataclass(frozen=True)
class _Kind:
    make: Callable[[ScorerInputs], Scorer]
    measures: Callable[[Mapping[str, Any]], tuple[Measure, ...]]
    prompt_options: frozenset[str] = frozenset()
    learns: bool = False


_KINDS: dict[Scoring, _Kind] = {
    "text": _Kind(_text, lambda layout: text_measures(layout["sections"])),
    "choice": _Kind(_choice, _choice_layout, frozenset({"shots", "rotate"})),
    "written_choice": _Kind(_written_choice, _choice_layout, frozenset({"shots", "rotate"})),
    "entities": _Kind(_entities, _entity_layout, frozenset({"constrained"}), learns=True),
    "writing": _Kind(_writing, _writing_layout, frozenset({"bertscore"}), learns=True),
}


def check_prompt_options(scoring: Scoring, prompt_options: PromptOptions) -> None:
    """Refuse prompt options that a scoring does not have.

    Raises:
        SettingsError: such as solved examples for running text.
        InputMissingError: there is no encoder at the path.
    """
    for name, value in asdict(prompt_options).items():
        if value and name not in _KINDS[scoring].prompt_options:
            raise SettingsError(f"{name} does nothing for a task scored as {scoring}", fix=f"leave --{name} out")
    if prompt_options.bertscore:
        read_encoder(prompt_options.bertscore)


def make_scorer(scoring: Scoring, inputs: ScorerInputs) -> Scorer:
    """The items of one scoring, ready to be answered.

    Raises:
        SettingsError: a prompt option that this scoring does not have.
    """
    check_prompt_options(scoring, inputs.options.prompt_options)
    return _KINDS[scoring].make(inputs)


def measures_of(scoring: Scoring, layout: Mapping[str, Any]) -> tuple[Measure, ...]:
    """The measures of tables with this layout, which an earlier scorer reported."""
    return _KINDS[scoring].measures(layout)


def learns(scoring: Scoring, prompt_options: PromptOptions) -> bool:
    """Whether training records are used, for solved examples or for baselines."""
    return _KINDS[scoring].learns or prompt_options.shots > 0
