"""The section `evaluate`: what is scored, and whether scores during training choose the adapter."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lora_med.config.section import Positive, Section

FED_BY_SCORES = ("reduce_lr_on_plateau", "greedy")  # learning rates that transformers takes from validation


class EvaluateSettings(Section):
    bootstrap_samples: Positive = 10_000
    """Resamples behind each 95% interval."""
    max_items: Positive | None = None
    """Score at most this many items, drawn with the split seed."""
    split: Literal["validation", "test"] = "test"
    """The held-out split to score on. During training it is always validation."""
    metrics: list[str] = Field(default_factory=list)
    """Functions of your own, as `package.module:function`: from predictions and references to named numbers."""
    lower_is_better: list[str] = Field(default_factory=list)
    """The names among their numbers for which less is better."""
    eval_steps: Annotated[int, Field(ge=0)] | None = None
    """Steps between two scorings of the adapter while it trains, on validation items; 0 or left out, never."""
    max_eval_samples: Positive = 200
    """While training, score at most this many validation items, drawn with the split seed."""
    metric_for_best_model: str | None = None
    """Which of the scores chooses the published adapter; left out, accuracy where there are options, else
    bits_per_byte."""
    load_best_model_at_end: bool = True
    """Publish the adapter of the best score, the earlier of two equals; with false the validation loss chooses."""

    @model_validator(mode="after")
    def _something_to_choose_by(self) -> EvaluateSettings:
        if self.metric_for_best_model is not None and not self.chooses:
            lacking = "load_best_model_at_end: true" if self.eval_steps else "eval_steps: how often to score"
            raise ValueError(f"metric_for_best_model chooses nothing without {lacking}")
        return self

    @property
    def chooses(self) -> bool:
        """Whether the scores while training choose the published adapter."""
        return bool(self.eval_steps) and self.load_best_model_at_end
