"""The counts behind /metrics, in Prometheus' text format; they hold no text, and no identifier of a record.

Source of the format: Prometheus, "Exposition formats", text format 0.0.4.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lora_med.serving.requests import Statistics

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass
class Histogram:
    """How often each time occurred, by the upper bounds SECONDS."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one time."""
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds


@dataclass
class ServerMetrics:
    """Counts since the start; one thread changes and reads them.

    `requests` are by endpoint, model and status. The model is a served name, or empty where a request names none.
    """

    requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    prompt_tokens: Counter[str] = field(default_factory=Counter)
    completion_tokens: Counter[str] = field(default_factory=Counter)
    gone: int = 0
    request_seconds: Histogram = field(default_factory=Histogram)
    first_token_seconds: Histogram = field(default_factory=Histogram)

    def render(self, engine: Statistics) -> str:
        """The page, with the engine's counts."""
        lines = [
            *_metric(
                "requests_total",
                "counter",
                "HTTP requests by endpoint, model and status.",
                (
                    ({"endpoint": endpoint, "model": model, "status": str(status)}, count)
                    for (endpoint, model, status), count in sorted(self.requests.items())
                ),
            ),
            *_by_model("prompt_tokens_total", "Tokens of prompts that were answered.", self.prompt_tokens),
            *_by_model("completion_tokens_total", "Tokens of answers.", self.completion_tokens),
            *_metric("client_gone_total", "counter", "Requests whose client left first.", [({}, self.gone)]),
            *_histogram(
                "request_seconds", "Time from a request's headers to the end of its answer.", self.request_seconds
            ),
            *_histogram("first_token_seconds", "Time to the first token of an answer.", self.first_token_seconds),
            *_engine(engine),
        ]
        return "\n".join(lines) + "\n"


def _engine(engine: Statistics) -> Iterable[str]:
    gauges = {
        "requests_running": ("Requests that tokens are computed for.", engine.running),
        "requests_waiting": ("Requests in the queue.", engine.waiting),
        "kv_bytes": ("Memory of keys and values.", engine.kv_bytes),
        "kv_limit_bytes": ("The most memory of keys and values.", engine.kv_limit_bytes),
    }
    counters = {
        "engine_finished_total": ("Requests that the engine finished.", engine.finished),
        "engine_cancelled_total": ("Requests that were cancelled.", engine.cancelled),
        "engine_failed_total": ("Requests that failed.", engine.failed),
        "engine_refused_total": ("Requests that were not admitted.", engine.refused),
        "engine_steps_total": ("Decoding steps.", engine.steps),
        "cached_prompt_tokens_total": ("Tokens of prompts taken from the prefix cache.", engine.cached_prompt_tokens),
        "swaps_from_disk_total": (
            "Adapters read from disk because another had taken their memory.",
            engine.swaps_from_disk,
        ),
        "split_passes_total": (
            "Passes of several requests that failed and were computed again for each alone.",
            engine.split_passes,
        ),
    }
    for kind, table in (("gauge", gauges), ("counter", counters)):
        for name, (text, value) in table.items():
            yield from _metric(name, kind, text, [({}, value)])
    resident = set(engine.resident)
    yield from _metric(
        "adapter_loaded",
        "gauge",
        "Adapters that can be asked; 1 is in memory, 0 is on disk.",
        (({"adapter": one.name, "sha256": one.sha256}, int(one.name in resident)) for one in engine.loaded),
    )
    yield from _metric(
        "adapter_out_of_service",
        "gauge",
        "Adapters that gave numbers that are not finite.",
        (({"adapter": one.name, "sha256": one.sha256}, 1) for one in engine.out_of_service),
    )


def _by_model(name: str, text: str, counts: Mapping[str, int]) -> list[str]:
    return _metric(name, "counter", text, (({"model": model}, count) for model, count in sorted(counts.items())))


def _metric(name: str, kind: str, text: str, values: Iterable[tuple[Mapping[str, str], float]]) -> list[str]:
    full = f"lora_med_{name}"
    return [
        f"# HELP {full} {text}",
        f"# TYPE {full} {kind}",
        *(f"{full}{_labels(one)} {value}" for one, value in values),
    ]


def _histogram(name: str, text: str, histogram: Histogram) -> list[str]:
    full, below = f"lora_med_{name}", 0
    lines = [f"# HELP {full} {text}", f"# TYPE {full} histogram"]
    for bound, count in zip((*map(str, SECONDS), "+Inf"), histogram.counts, strict=True):
        below += count
        lines.append(f'{full}_bucket{{le="{bound}"}} {below}')
    return [*lines, f"{full}_sum {histogram.total:.6f}", f"{full}_count {below}"]


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
