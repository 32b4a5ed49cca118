"""Every config that ships parses, names what exists, and says what it is for; accelerate reads its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lora_med.config.parse import parse
from lora_med.data.catalog import find_source
from lora_med.data.formats.find_inputs import find_inputs
from lora_med.models.files.wheel_bases import WHEELS
from lora_med.prompts.templates.templates import TEMPLATES

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "lora_med" / "assets" / "configs").glob("*.yaml"))
LAUNCHERS = sorted((ROOT / "recipes" / "accelerate").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_config_parses_and_names_what_exists(path: Path) -> None:
    settings = parse(path)
    find_source(settings.data.source)
    assert path.read_text().startswith("# "), "the first line says what the config is for"
    assert settings.data.paths
    assert settings.adapter.description
    for shipped in settings.data.paths:
        if shipped.startswith("sample:"):
            assert find_inputs(find_source(settings.data.source), [shipped])


def test_each_config_has_its_own_adapter_and_output() -> None:
    settings = [parse(path) for path in CONFIGS]
    assert len({one.adapter.name for one in settings}) == len(CONFIGS)
    assert len({one.train.output_dir for one in settings}) == len(CONFIGS)


def test_a_base_from_the_hub_is_said_to_need_the_network() -> None:
    for path in CONFIGS:
        settings = parse(path)
        assert settings.offline == (settings.model.base in ("micro", *WHEELS)), path


def test_every_task_has_a_micro_config() -> None:
    """Each template that a record's kind can be trained on by itself, but for those that only reword another."""
    reworded = {
        "pubmedqa_chat",
        "pubmedqa_reasoning_free",
        "entities_chat",
        "medqa",
        "pair",
        "pair_chat",
        "question_chat",
    }
    reworded |= {"pubmedqa_chat_v2", "entities_chat_v2", "pair_chat_v2"}
    reworded |= {"mmlu", "choice", "cloze", "ending"}
    settings = [parse(path).data for path in CONFIGS if path.stem.startswith(("micro", "quickstart"))]
    assert {one.template or find_source(one.source).template for one in settings} == set(TEMPLATES) - reworded


def test_only_a_plain_text_source_is_packed() -> None:
    for path in CONFIGS:
        settings = parse(path)
        running = settings.data.source == "pubmed" and settings.data.template is None
        assert settings.train.packing == running, path


def test_a_changed_value_has_its_reason_beside_it() -> None:
    for path in CONFIGS:
        for line in path.read_text().splitlines():
            if re.match(r" +(learning_rate|gradient_accumulation_steps|load_in_4bit):", line):
                assert "#" in line, f"{path.name}: {line.strip()}"


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
def test_accelerate_reads_the_launcher(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    found: Any = load_config_from_file(str(path))
    expected = {"fsdp_qlora": "FSDP", "zero3": "DEEPSPEED"}.get(path.stem, "MULTI_GPU")
    assert str(found.distributed_type).endswith(expected)
    assert found.use_cpu == (path.stem == "cpu")
    if path.stem == "fsdp_qlora":
        assert found.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    if path.stem == "two_machines":
        assert (found.num_machines, found.machine_rank, found.num_processes % found.num_machines) == (2, 0, 0)
        assert found.main_process_ip and found.main_process_port


def test_a_slurm_job_shards_with_the_variables_that_accelerate_sets() -> None:
    """accelerate passes its file on as variables: those of the job's SHARDED=1 must be the same."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    script = (ROOT / "recipes" / "slurm" / "train.sbatch").read_text(encoding="utf-8")
    config = ROOT / "recipes" / "accelerate" / "fsdp_qlora.yaml"
    parsed = launch_command_parser().parse_args([f"--config_file={config}", "--num_processes=2", "script.py"])
    arguments, *_ = _validate_launch_command(parsed)
    expected = prepare_multi_gpu_env(arguments)
    names = re.findall(r"((?:ACCELERATE|FSDP)_\w+)=(\w+)", script)
    assert len(names) >= 8
    assert {name: expected[name].lower() for name, _ in names} == {name: value.lower() for name, value in names}
