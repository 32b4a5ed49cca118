"""How an evaluation is run, in one immutable value that passes unchanged from the caller to the scorer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lora_med.data.catalog import find_source
from lora_med.evaluation.tasks import Scoring, check_scoring, scoring_of
from lora_med.metrics.custom_metric import Metric


@dataclass(frozen=True)
class PromptOptions:
    """How items are put to a model beyond what the template says.

    `shots` is the number of solved examples before each question. `rotate` asks each question in every order of its
    options. `constrained` restricts written entities to the JSON list. `bertscore` is `FOLDER:LAYER` of an encoder
    that compares written texts with their references.
    """

    shots: int = 0
    rotate: bool = False
    constrained: bool = False
    bertscore: str = ""


@dataclass(frozen=True)
class EvalOptions:
    """How held-out records are worded, scored and compared.

    An empty `template` takes that of the records' source, and `scoring` None takes what the template is made for. At
    most `max_items` records are drawn by `seed`. `samples` is the number of written texts to show of each subject;
    records that are not open show none. `metrics` are the user's own functions by name, as `load_metric` returns them;
    `lower_is_better` names those of their numbers for which less is better.
    """

    template: str = ""
    scoring: Scoring | None = None
    store: Path | str = "adapters"
    max_items: int | None = None
    bootstrap_samples: int = 10_000
    seed: int = 42
    samples: int = 3
    prompt_options: PromptOptions = PromptOptions()
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    lower_is_better: Collection[str] = ()

    def for_source(self, source: str) -> EvalOptions:
        """The options with the template of `source` where none is named.

        Raises:
            SettingsError: no such source.
        """
        return replace(self, template=self.template or find_source(source).template)

    def checked_scoring(self) -> Scoring:
        """The scoring to use.

        Raises:
            SettingsError: the template does not allow it.
        """
        scoring = self.scoring if self.scoring is not None else scoring_of(self.template)
        check_scoring(self.template, scoring)
        return scoring
