"""From a request with a model's name to running requests in the engine: tokens, limits, and one request a choice."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lora_med.serving.requests import Ask, Limits, NotLoaded, QueueFull, Running, Sampling
from lora_med.serving.served_models import ServedModel, ServedModels
from lora_med.serving.web.chat_request import Messages
from lora_med.serving.web.error_bodies import ApiError, busy

if TYPE_CHECKING:
    from lora_med.serving.engine import Engine

PATIENCE_SECONDS, PAUSE_SECONDS = 1.0, 0.005  # while an adapter is replaced between a prompt's tokens and its start


@dataclass(frozen=True)
class Submission:
    """A request on its way into the engine: a conversation, or prompts as text or token ids.

    Each prompt gets `choices` answers. With `fills_context` an answer may be as long as the context admits.
    """

    id: str
    key: str
    model: str
    sampling: Sampling
    messages: Messages = ()
    prompts: tuple[str | tuple[int, ...], ...] = ()
    choices: int = 1
    fills_context: bool = False
    echo_logprobs: bool = False


class Submitter:
    """Puts requests into an engine; thread-safe."""

    def __init__(self, engine: Engine, models: ServedModels, limits: Limits) -> None:
        self._engine, self._models, self._limits = engine, models, limits

    def submit(self, submission: Submission) -> tuple[ServedModel, list[Running]]:
        """The model that answers, and the running requests, prompt by prompt and choice by choice.

        The adapter may be replaced after its template made the tokens. The request then begins again.

        Raises:
            ApiError: no such model, or one that is out of service or replaced again and again; a full queue.
            LoraMedError: the engine or the template refuses the prompt.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            model = self._models.find(submission.model)
            try:
                prompts = self._encode(submission, model)
                return model, self._submit_all(submission, model, prompts)
            except NotLoaded as error:
                if self._is_out_of_service(model):
                    message = f"{model.name!r} is out of service: it gave numbers that are not finite"
                    raise ApiError(503, message, code="out_of_service", param="model") from error
                if time.monotonic() > deadline:
                    raise busy(f"adapter {model.name!r} is being replaced", 1) from error
                time.sleep(PAUSE_SECONDS)

    def _encode(self, submission: Submission, model: ServedModel) -> list[tuple[int, ...]]:
        if submission.messages:
            return [tuple(self._engine.encode_chat(model.adapter, submission.messages))]
        return [
            prompt if isinstance(prompt, tuple) else tuple(self._engine.encode_text(model.adapter, prompt))
            for prompt in submission.prompts
        ]

    def _submit_all(
        self, submission: Submission, model: ServedModel, prompts: Sequence[tuple[int, ...]]
    ) -> list[Running]:
        requests: list[Running] = []
        try:
            for place, tokens in enumerate(prompts):
                for choice in range(submission.choices):
                    ask = self._ask(submission, model, tokens, place, choice)
                    requests.append(self._engine.submit(ask))
        except BaseException as error:
            _cancel(requests)
            if isinstance(error, QueueFull) and self._engine.statistics().waiting >= self._limits.max_queue:
                raise busy(error.what, error.retry_after) from error
            raise
        return requests

    def _ask(self, submission: Submission, model: ServedModel, tokens: tuple[int, ...], place: int, choice: int) -> Ask:
        """One choice of one prompt; with a seed, each choice has the next one."""
        sampling = submission.sampling
        if submission.fills_context:
            context = self._engine.context
            left = self._limits.max_tokens if context is None else context - len(tokens)
            sampling = replace(sampling, max_tokens=max(1, min(left, self._limits.max_tokens)))
        if sampling.seed is not None:
            sampling = replace(sampling, seed=sampling.seed + choice)
        request_id = f"{submission.id}-{place}-{choice}"
        return Ask(
            request_id,
            model.adapter,
            tokens,
            sampling,
            submission.key,
            submission.echo_logprobs,
            identity=model.identity,
        )

    def _is_out_of_service(self, model: ServedModel) -> bool:
        return any(one.name == model.adapter for one in self._engine.statistics().out_of_service)


def _cancel(requests: Sequence[Running]) -> None:
    for request in requests:
        request.cancel()
