"""python benchmarks/main_job.py --data ../shared/data --page docs/results.md

The main job on real input. Abstracts of a PubMed file and the answers of PubMedQA are each learned by two bases: the
embedded base in 4 bits, and stories260K, which was made elsewhere and trained on children's stories only. That is four
trainings through `accelerate launch` and four comparisons through `lora-med eval`. The page is written from their
report.json.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CPU_FACTS = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
PROCESSOR = next((line.split(": ")[1] for line in CPU_FACTS if line.startswith("model name")), "unknown processor")


@dataclass(frozen=True)
class Arm:
    """One training: its recipe, the settings that go with it, and how long rows may be."""

    name: str
    recipe: str
    config: str
    source: str
    file: str
    settings: tuple[str, ...]


STORIES = ("model.base={data}/models/stories260K", "model.load_in_4bit=false", "train.per_device_train_batch_size=16")
PUBMED = ("sft_pubmed", "micro_pubmed", "pubmed", "pubmed_xml/pubmed20n1015.xml.gz")
PUBMEDQA = ("sft_task", "micro_pubmedqa", "pubmedqa", "pubmedqa/ori_pqal_nontest500.json")
EVIDENCE = "<!-- evidence -->"  # after it is what benchmarks/evidence.py wrote
ARMS = (
    Arm("micro-pubmed", *PUBMED, ("model.base=micro",)),
    Arm("micro-pubmedqa", *PUBMEDQA, ("model.base=micro",)),
    Arm("stories-pubmed", *PUBMED, (*STORIES, "train.max_length=512")),
    # 512 words of vocabulary spell an abstract in many tokens; the rows run past the 512 positions it was trained on.
    Arm("stories-pubmedqa", *PUBMEDQA, (*STORIES, "train.max_length=2048")),
)
TITLES = {"pubmed": "Abstracts", "pubmedqa": "PubMedQA"}
LOADED = {"none": "full precision", "8bit": "8 bits", "4bit": "4 bits"}


def run(command: list[str]) -> tuple[str, float]:
    """Standard output and seconds of a command; its own messages go to the terminal."""
    print("$", *command, flush=True)
    started = time.perf_counter()
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return result.stdout, time.perf_counter() - started


def measure(arm: Arm, data: Path, out: Path) -> dict[str, Any]:
    """Train and compare; returns the report with the commands and times."""
    folder = out / arm.name
    settings = [item.format(data=data) for item in arm.settings]
    train = [
        *("accelerate", "launch", "--num_processes", "1", "--cpu", f"recipes/{arm.recipe}.py"),
        *("--config", f"lora_med/assets/configs/{arm.config}.yaml", *settings, f"data.paths=[{data / arm.file}]"),
        *(f"train.output_dir={folder}", f"adapter.name={arm.name}", f"adapter.store={out / 'adapters'}"),
        "adapter.overwrite=true",
    ]
    compare = [
        *("lora-med", "eval", "--adapter", arm.name, "--store", str(out / "adapters"), "--out", str(folder / "eval")),
        *("--source", arm.source, "--data", str(data / arm.file), "--base", settings[0].split("=", 1)[1], "--json"),
    ]
    bin_folder = Path(sys.executable).parent
    _, train_seconds = run([str(bin_folder / train[0]), *train[1:]])
    report, eval_seconds = run([str(bin_folder / compare[0]), *compare[1:]])
    return {
        "arm": arm.name,
        "commands": [" ".join(command).replace(str(data), "data") for command in (train, compare)],
        "seconds": [round(train_seconds), round(eval_seconds)],
        "run": json.loads((folder / "run.json").read_text(encoding="utf-8")),
        "report": json.loads(report),
    }


def interval(value: dict[str, float], key: str) -> str:
    return f"{value[key]:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def section(result: dict[str, Any]) -> list[str]:
    """The page's lines for one arm: base beside adapter, difference, verdict, commands."""
    report, facts = result["report"], result["run"]
    entry = report["evaluations"][0]
    base, adapter = entry["subjects"]
    lines = [
        f"## {TITLES[entry['source']]}: {Path(entry['base']['name']).name} in {LOADED[entry['base']['quantization']]}",
        "",
        f"{entry['items']} held-out items ({entry['groups']} groups, split `{entry['split']}`, template "
        f"`{entry['template']}`). Training took {result['seconds'][0]} s and the comparison {result['seconds'][1]} s, "
        "each with its start-up.",
        "",
        "| measure | base | adapter | difference | verdict |",
        "|---|---|---|---|---|",
    ]
    for measure_ in entry["measures"]:
        name = measure_["name"]
        change = adapter["changes"].get(name)
        difference = interval(change, "difference") if change else ""
        verdict = change["verdict"] if change else ""
        cells = [measure_["label"], *(interval(subject["values"][name], "value") for subject in (base, adapter))]
        lines.append(f"| {' | '.join([*cells, difference, verdict])} |")
    if "mcnemar" in adapter:
        test, (baseline,) = adapter["mcnemar"], entry["baselines"]
        lines += [
            "",
            f"McNemar: {test['only_base']} items right with the base only, {test['only_adapter']} with the adapter "
            f"only, p = {test['p_value']:.3f}. {baseline['name']} is right for a share of "
            f"{baseline['values']['accuracy']['value']:.3f}.",
        ]
    if facts.get("split"):
        lines += ["", f"Split: {facts['split']}."]
    return [*lines, "", "```", *result["commands"], "```", ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/results"))
    parser.add_argument("--page", type=Path, default=Path("docs/results.md"))
    parser.add_argument("--only", help="the name of one arm, or `none`; for the others, the last reports are used")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for arm in ARMS:
        if options.only in (None, arm.name):
            result = measure(arm, options.data, options.out)
            (options.out / f"{arm.name}.json").write_text(json.dumps(result), encoding="utf-8")
    reports = [options.out / f"{arm.name}.json" for arm in ARMS]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in reports if path.exists()]
    versions = results[0]["run"]["versions"]
    packages = [f"{name} {versions[name]}" for name in ("torch", "transformers", "peft", "trl", "bitsandbytes")]
    page = [
        "# Results on real input",
        "",
        "`python benchmarks/main_job.py` writes this part from the reports of `lora-med eval`. Square brackets",
        "hold 95% intervals, paired for the differences. Each is one run with seed 42. `data` is the folder of",
        "the data files. The terms are in the [glossary](glossary.md).",
        "",
        f"Machine: {PROCESSOR}, {os.cpu_count()} cores, no GPU, {platform.system()}. {', '.join(packages)}.",
        "",
        *(line for result in results for line in section(result)),
    ]
    known = options.page.read_text(encoding="utf-8") if options.page.is_file() else ""
    evidence = known[known.index(EVIDENCE) :] if EVIDENCE in known else ""
    options.page.write_text("\n".join(page) + evidence, encoding="utf-8")


if __name__ == "__main__":
    main()
