"""export_onnx(): the merged model as an ONNX graph by transformers' own exporter, proved in ONNX Runtime.

The inputs of the graph are `input_ids` and `attention_mask` (batch, tokens), of any size. Its output is `logits`
(batch, tokens, vocabulary). It has no key-value cache, so it suits scoring and short answers.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lora_med.adapters.store.published import open_published
from lora_med.errors import IntegrityError
from lora_med.export.compatibility import refuse
from lora_med.export.export_folder import WORK, Export, check_packages, count_parameters, fresh_export, read_export
from lora_med.merge.merge import merge_published
from lora_med.merge.proof.logits import probe_ids, probe_logits
from lora_med.models.base import STANDARD, load_base

MODEL = "model.onnx"
NEEDED = {name: name for name in ("onnx", "onnxscript", "onnxruntime")}  # module -> package
TOLERANCE = 1e-3  # of a logit, in float32
logger = logging.getLogger(__name__)


def export_onnx(
    name: str,
    out: Path | str,
    *,
    base: str | None = None,
    revision: str | None = None,
    store: Path | str = "adapters",
    accept_memorization: str | None = None,
) -> Export:
    """Write model.onnx (weights beside it), settings and tokenizer of the merged model into the fresh folder `out`.

    Args:
        accept_memorization: who accepts that the adapter exceeds the bound of its memorization audit.

    Raises:
        NotPermittedError: it exceeds that bound, and nobody accepts it.
        DependencyMissingError: a package is not installed.
        IntegrityError: the exporter fails, or ONNX Runtime's logits differ from PyTorch's.
        InputMissingError, OutputError, DiskError: as in `merge_adapter`.
    """
    check_packages(NEEDED, "ONNX")
    adapter = open_published(name, store, base, revision)
    warnings = refuse(adapter.card, adapter.base, "onnx", "merged")
    facts: dict[str, Any] = {"target": "onnx", "part": "merged", "warnings": [finding.what for finding in warnings]}
    with fresh_export(
        Path(out),
        adapter,
        needed_bytes=count_parameters(adapter.base) * 8,
        facts=facts,
        accept_memorization=accept_memorization,
    ) as folder:
        work = folder / WORK / name
        logger.info("merging in float32")
        certificate = merge_published(adapter, work, dtype="float32").certificate
        facts["merge"] = {"probe": certificate["probe"], "weights": certificate["merged"]["fingerprint"]["weights"]}
        merged = load_base(str(work), quantization="none", dtype="float32", attention=STANDARD)
        rows = [row for row in probe_ids(merged.tokenizer) if len(row) > 1]
        device = next(merged.model.parameters()).device
        expected = probe_logits(merged.model, rows, device)
        logger.info("tracing the graph (about a minute)")
        _write(merged.model.cpu(), rows, folder / MODEL, adapter.name)
        merged.tokenizer.save_pretrained(folder)
        merged.model.config.save_pretrained(folder)
        logger.info("comparing logits in ONNX Runtime")
        facts["proof"] = _prove(folder / MODEL, rows, expected)
    return read_export(out)


def _write(model: Any, rows: Sequence[Sequence[int]], target: Path, name: str) -> None:
    exporters: Any = importlib.import_module("transformers.exporters.exporter_onnx")
    length = min(map(len, rows))
    sample = torch.tensor([list(rows[0][:length]), list(rows[1][:length])])
    model.config.use_cache = False
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # torch.onnx prints its steps, but --json must print only JSON
            exported = exporters.OnnxExporter().export(
                model,
                {"input_ids": sample, "attention_mask": torch.ones_like(sample)},
                config=exporters.OnnxConfig(dynamic=True),
            )
    except Exception as error:  # tracing calls many libraries, each with its own errors
        raise IntegrityError(
            f"transformers' exporter cannot trace this model ({type(error).__name__})",
            where=name,
            fix="lora-med merge writes a Hugging Face folder, which needs no tracing; --debug shows where it failed",
        ) from error
    exporters.OnnxExporter.save_program(exported.program, target)


def _prove(model: Path, rows: Sequence[Sequence[int]], expected: Sequence[torch.Tensor]) -> dict[str, Any]:
    """Compare logits of each row, and of all rows in one padded batch, with PyTorch's.

    Raises:
        IntegrityError: a difference exceeds the tolerance.
    """
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    longest = max(map(len, rows))
    padded = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    together = _logits(session, padded, mask)
    alone = [
        _logits(session, torch.tensor([list(row)]), torch.ones((1, len(row)), dtype=torch.long))[0] for row in rows
    ]
    worst = max(
        max(float((single - ours).abs().max()), float((batch[: len(row)] - ours).abs().max()))
        for single, batch, ours, row in zip(alone, together, expected, rows, strict=True)
    )
    if not worst <= TOLERANCE:
        raise IntegrityError(
            f"ONNX Runtime's logits differ from PyTorch's by up to {worst:.3g}; allowed is {TOLERANCE:g}",
            where=f"{sum(map(len, rows))} positions; nothing was written",
            fix="report the model's type and the versions of onnx, onnxscript and onnxruntime",
        )
    return {"positions": sum(map(len, rows)), "largest_logit_difference": worst, "opset": _opset(model)}


def _logits(session: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    outputs = session.run(["logits"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    return torch.from_numpy(outputs[0])


def _opset(model: Path) -> int:
    onnx: Any = importlib.import_module("onnx")
    return max(
        opset.version for opset in onnx.load(str(model), load_external_data=False).opset_import if not opset.domain
    )
