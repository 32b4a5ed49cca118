"""What lora_med can do with a tiny base of each family: every cell is run, in a process of its own.

`tools/models_page.py` writes the table of docs/models.md by it, and a slow test holds that table.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lora_med
from lora_med.data.record import Pair
from lora_med.errors import LoraMedError
from lora_med.export.gguf.converter import check_gguf_packages, find_converter
from lora_med.export.gguf.export_gguf import export_gguf
from lora_med.merge.merge import merge_adapter
from lora_med.models.structure.adaptable_layers import share_reached
from lora_med.models.structure.expert_stacks import expert_stacks
from tests.gguf_bases import make_gguf_base
from tests.tiny_families import ALL, CLASSES, make_family
from tests.training.support import run_ranks, wait

YES = "yes"
CAPABILITIES = ("train", "two processes", "packed", "4-bit", "merge proved", "evaluated", "loads in PEFT", "share")
GGUF = "GGUF proved"
COLUMNS = (*CAPABILITIES[:5], GGUF, *CAPABILITIES[5:])  # of the table of families
ROWS = [{"prompt": f"Is {number} even?", "completion": " no" if number % 2 else " yes"} for number in range(24)]


def _train(base: Path, name: str, *more: str) -> Path:
    settings = ["data.source=custom", f"model.base={base}", f"adapter.name={name}", f"train.output_dir=runs/{name}"]
    settings += ["adapter.access=open", "train.max_steps=3", "train.learning_rate=0.01", "model.dtype=float32"]
    settings += ["train.per_device_train_batch_size=4", "lora.lora_dropout=0", "data.validation_share=0.2"]
    quantization = [] if any("load_in_4bit" in setting for setting in more) else ["model.load_in_4bit=false"]
    return lora_med.train(lora_med.parse(None, [*settings, *quantization, *more]), train=ROWS)


def _packed(base: Path, *more: str) -> None:
    card = lora_med.read_card(_train(base, "packed", "train.packing=true", "train.max_length=128", *more))
    if not card.settings["train"]["packing"]:
        raise LoraMedError("packed documents would see each other, so packing is turned off")


def _two_processes(base: Path, *more: str) -> None:
    codes = run_ranks(2, lambda: _train(base, "two", *more), Path("ranks"))
    if codes != [0, 0]:
        message = (Path("ranks") / f"error-{0 if codes[0] else 1}.txt").read_text()
        raise LoraMedError(message.partition("]: ")[2].partition("\nwhere:")[0] or message[-300:])


def _merged(base: Path, name: str) -> None:
    folder = Path("merged") / name
    merge_adapter(name, folder, base=str(base))
    before, after = (json.loads((place / "config.json").read_text())["architectures"] for place in (base, folder))
    if before != after:
        raise RuntimeError(f"the merged folder is of {after}, the base of {before}")


def _gguf_proved(family: str) -> None:
    """Trained, merged and exported, on a base that llama.cpp can have (tests/gguf_bases.py)."""
    base = make_gguf_base(family, Path("base"))
    _train(base, "gguf")
    export_gguf("gguf", "out", base=str(base), formats=("f16",))


def _evaluated(base: Path) -> None:
    records = [
        Pair(f"r{number}", f"r{number}", "custom", row["prompt"], row["completion"]) for number, row in enumerate(ROWS)
    ]
    held_out = lora_med.HeldOutRecords(tuple(records), "open", "custom")
    options = lora_med.EvalOptions(template="pair", max_items=4, bootstrap_samples=20)
    loaded = lora_med.load_base(str(base), quantization="none", dtype="float32")
    lora_med.evaluate(loaded, ["plain"], held_out, options)


def _loads_in_peft(base: Path) -> None:
    """The lines of the adapter's README load it, and the logits are those of `attach`."""
    import torch

    loaded = lora_med.load_base(str(base), quantization="none", dtype="float32", attention="standard")
    ids = torch.tensor([loaded.tokenizer("Is 3 even?")["input_ids"]])
    with torch.no_grad():
        expected = lora_med.attach(loaded, "plain")(input_ids=ids, use_cache=False).logits
    readme = Path("adapters/plain/README.md").read_text()
    lines = readme.partition("```python\n")[2].partition("```")[0]
    lines = lines.replace(f'"{base.name}"', repr(str(base))).replace('"plain"', '"adapters/plain"')
    names: dict[str, Any] = {}
    exec(lines, names)
    with torch.no_grad():
        actual = names["model"].eval()(input_ids=ids, use_cache=False).logits
    difference = float((actual - expected).abs().max())
    if difference > 1e-5:
        raise RuntimeError(f"PEFT's logits differ by {difference:.2g}")


def _share(base: Path, *, experts: bool) -> float:
    model = lora_med.load_base(str(base), quantization="none").model
    return share_reached(model, stacks=expert_stacks(model) if experts else ())


def exports_gguf() -> bool:
    """Whether the converter and the packages of an export to GGUF are here."""
    try:
        check_gguf_packages()
        find_converter()
    except LoraMedError:
        return False
    return True


def gguf_answer(family: str, folder: Path) -> str:
    """The answer for the column of GGUF, for which the converter and the packages of lora-med[gguf] must be here."""
    return in_child(lambda: _gguf_proved(family), folder / f"{family}-gguf")


def capabilities(family: str, folder: Path, *, experts: bool = False) -> dict[str, str]:
    """Capability -> `yes`, or the sentence that says why not; `share` is the share of the weights in per cent.

    The column of GGUF is `gguf_answer`'s.

    Args:
        experts: whether the routed experts are adapted too.
    """
    more = ["lora.target_experts=true"] if experts else []
    base = make_family(family, folder / family)
    results: dict[str, str] = {}

    def attempt(name: str, work: Callable[[], Any]) -> None:
        results[name] = in_child(work, folder / f"{family}-{name.replace(' ', '-')}")

    attempt("train", lambda: _train(base, "plain", *more))
    attempt("packed", lambda: _packed(base, *more))
    attempt("4-bit", lambda: (_train(base, "four", "model.load_in_4bit=true", *more), _merged(base, "four")))
    attempt("two processes", lambda: _two_processes(base, *more))
    if results["train"] == YES:
        place = folder / f"{family}-train"
        results["merge proved"] = in_child(lambda: _merged(base, "plain"), place)
        results["evaluated"] = in_child(lambda: _evaluated(base), place)
        results["loads in PEFT"] = in_child(lambda: _loads_in_peft(base), place)
    else:
        results |= dict.fromkeys(("merge proved", "evaluated", "loads in PEFT"), results["train"])
    results["share"] = in_child(lambda: _share(base, experts=experts), folder)
    return results


def in_child(work: Callable[[], Any], folder: Path) -> str:
    """`yes` if `work` ends in a forked process, in `folder`; a number that it returns; or its error in one line."""
    folder.mkdir(parents=True, exist_ok=True)
    answer = folder / "answer.txt"
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            _answer(work, folder, answer)
        os._exit(0)
    wait(child)
    return answer.read_text() if answer.is_file() else "the process died"


def _answer(work: Callable[[], Any], folder: Path, answer: Path) -> None:
    quiet = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    os.chdir(folder)
    try:
        returned = work()
        answer.write_text(f"{returned:.0%}" if isinstance(returned, float) else YES)
    except LoraMedError as error:
        answer.write_text(error.what.partition("\n")[0])
    except BaseException as error:
        answer.write_text(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


__all__ = ["ALL", "CAPABILITIES", "COLUMNS", "CLASSES", "GGUF", "YES", "capabilities", "exports_gguf", "gguf_answer"]
