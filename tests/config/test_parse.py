"""Settings: what a file and the command line mean, and one message for all that is wrong with them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lora_med.config.explain import ELSEWHERE
from lora_med.config.parse import parse
from lora_med.config.read import is_section, to_yaml, wanted_at
from lora_med.config.schema import Settings
from lora_med.errors import InputMissingError, SettingsError

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    numbers = itertools.count()

    def write_yaml(text: str) -> Path:
        path = tmp_path / f"{next(numbers)}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_yaml


def refusal(path: Path | None, *overrides: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        parse(path, overrides)
    return caught.value


def complaints(path: Path | None, *overrides: str) -> list[str]:
    return [line.strip() for line in refusal(path, *overrides).what.splitlines()[1:]]


def test_nothing_given_is_the_defaults() -> None:
    assert parse() == Settings()


def test_an_empty_file_and_empty_sections_are_the_defaults(write: Write) -> None:
    assert parse(write("")) == parse(write("# a comment\n")) == parse(write("train:\nmodel:\n\n")) == Settings()


def test_overrides_win_over_the_file_and_the_file_over_the_defaults(write: Write) -> None:
    path = write("train:\n  learning_rate: 1e-3\n  seed: 7\n")
    settings = parse(path, ["train.learning_rate=3e-4"])
    assert (settings.train.learning_rate, settings.train.seed, settings.train.max_length) == (3e-4, 7, 1024)


def test_the_last_of_two_overrides_wins() -> None:
    assert parse(None, ["train.seed=1", "train.seed=2"]).train.seed == 2


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "0.0001", ".1e-3"])
def test_every_way_to_write_a_number_is_a_number(write: Write, text: str) -> None:
    assert parse(None, [f"train.learning_rate={text}"]).train.learning_rate == pytest.approx(1e-4, rel=1e-12)
    assert parse(write(f"train:\n  learning_rate: {text}\n")).train.learning_rate == pytest.approx(1e-4, rel=1e-12)
    free = parse(write(f"train:\n  trainer_args: {{adam_epsilon: {text}}}\n")).train.trainer_args
    assert free["adam_epsilon"] == pytest.approx(1e-4, rel=1e-12)


@pytest.mark.parametrize(
    "text", ["1234567", "12e4567", "0123456", "on", "no", "2024-01-01", "1.0", "12:30", "a: b # c"]
)
def test_a_field_for_text_takes_it_as_written(write: Write, text: str) -> None:
    assert parse(None, [f"model.revision={text}"]).model.revision == text
    if "#" not in text:
        assert parse(write(f"model:\n  revision: {text}\n")).model.revision == text


@pytest.mark.parametrize("quote", ["'", '"'])
def test_quotes_are_taken_off_text_and_keep_it_text(write: Write, quote: str) -> None:
    for text in ("1e5", "null", "true", "a b"):
        quoted = f"{quote}{text}{quote}"
        assert parse(None, [f"train.output_dir={quoted}"]).train.output_dir == text
        assert parse(write(f"train:\n  output_dir: {quoted}\n")).train.output_dir == text
        free = parse(write(f"train:\n  trainer_args: {{run_name: {quoted}}}\n")).train.trainer_args
        assert free == {"run_name": text}


@pytest.mark.parametrize("text", ["null", "~", ""])
def test_nothing_is_none_where_none_is_allowed(text: str) -> None:
    assert parse(None, ["model.revision=abc", f"model.revision={text}"]).model.revision is None
    assert complaints(None, f"model.base={text}") == ["`model.base`: got nothing; wanted: text"]


def test_lists_and_pairs_come_from_the_command_line() -> None:
    assert parse(None, ["lora.target_modules=[q_proj]"]).lora.target_modules == ["q_proj"]
    assert parse(None, ["lora.target_modules=all-linear"]).lora.target_modules == "all-linear"
    assert parse(None, ["data.paths=[a.xml, 2024]"]).data.paths == ["a.xml", "2024"]
    assert parse(None, ["data.columns={text: body}", "data.columns.uid=id"]).data.columns == {
        "text": "body",
        "uid": "id",
    }
    assert parse(None, ["lora.rank_pattern.layers[0-9]=8"]).lora.rank_pattern == {"layers[0-9]": 8}
    assert parse(None, ["train.trainer_args.adam_beta2=0.95"]).train.trainer_args == {"adam_beta2": 0.95}


def test_every_error_is_reported_at_once_with_its_line(write: Write) -> None:
    path = write(
        "train:\n"
        "  learnin_rate: 1e-4\n"
        "  max_steps: many\n"
        "model:\n"
        "  load_in_8bit: true\n"
        "  dtype: bf16\n"
        "data:\n"
        "  validation_share: 2\n"
        "learning_rate: 3\n"
        "adapter:\n"
        "  name: Bad Name\n"
    )
    error = refusal(path, "lora.r=0")
    assert error.what.startswith("8 settings are wrong:\n")
    assert complaints(path, "lora.r=0") == [
        "line 2: unknown key `train.learnin_rate`: did you mean `train.learning_rate`?",
        "line 3: `train.max_steps`: got 'many'; wanted: a whole number",
        "line 4: `model`: load_in_4bit and load_in_8bit cannot both be true; set one of them to false",
        "line 6: `model.dtype`: got 'bf16'; wanted: one of auto, float32, bfloat16, float16; did you mean 'bfloat16'?",
        "line 8: `data.validation_share`: got 2; wanted: at most 1",
        "line 9: unknown key `learning_rate`: did you mean `train.learning_rate`?",
        "line 11: `adapter.name`: got 'Bad Name'; wanted: name in the store: lower-case letters, digits, `_` and `-`, "
        "at most 64",
        "the command line: `lora.r`: got 0; wanted: at least 1",
    ]
    assert (error.exit_code, error.where) == (2, str(path))


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("train.lr=1", "train.learning_rate"),
        ("lr=1", "train.learning_rate"),
        ("lora.rank=4", "lora.r"),
        ("model.bsae=x", "model.base"),
        ("trainn.seed=1", "train"),
        ("model.learning_rate=1", "train.learning_rate"),
        ("bootstrap_sample=3", "evaluate.bootstrap_samples"),
        ("data.model_name_or_path=x", "model.base"),
        ("train.max_seq_length=9", "train.max_length"),
        ("template=entities", "data.template"),
        ("lora.template=entities", "data.template"),
        ("access=open", "adapter.access"),
        ("templat=entities", "data.template"),
    ],
)
def test_a_misspelt_or_misplaced_key_gets_the_near_one(override: str, meant: str) -> None:
    (line,) = complaints(None, override)
    assert line.endswith(f"did you mean `{meant}`?")


def test_a_key_of_two_sections_is_suggested_with_both() -> None:
    (line,) = complaints(None, "eval_steps=5")
    assert line.endswith("did you mean `train.eval_steps` or `evaluate.eval_steps`?")


@pytest.mark.parametrize("override", ["stage=2", "train.stage=2", "lora.b=1", "zebra=1"])
def test_a_far_key_gets_no_suggestion(override: str) -> None:
    (line,) = complaints(None, override)
    assert "did you mean" not in line and "known: " in line


def test_names_of_other_tools_lead_to_settings_that_exist() -> None:
    for dotted in ELSEWHERE.values():
        section, name = dotted.split(".")
        holder = wanted_at((section,))
        assert is_section(holder) and name in holder.model_fields
    for other in ELSEWHERE:
        assert other not in {name for field in Settings.model_fields.values() for name in _fields(field.annotation)}


def _fields(annotation: Any) -> list[str]:
    return list(annotation.model_fields) if is_section(annotation) else []


def test_a_key_like_no_other_gets_the_list_of_those_there_are() -> None:
    (line,) = complaints(None, "lora.zzz=1")
    assert "known: r, lora_alpha, lora_dropout" in line
    (line,) = complaints(None, "train.adam_beta2=0.9")
    assert "any other field of TRL's SFTConfig goes under train.trainer_args" in line


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train=3", "`train`: got 3; wanted: a section with output_dir, num_train_epochs, max_steps, ..."),
        ("train.seed=1.5", "`train.seed`: got 1.5; wanted: a whole number"),
        ("train.max_steps=yes", "`train.max_steps`: got 'yes'; wanted: a whole number"),
        ("train.max_steps=12:30", "`train.max_steps`: got '12:30'; wanted: a whole number"),
        ("train.learning_rate=fast", "`train.learning_rate`: got 'fast'; wanted: a number"),
        ("train.learning_rate=0", "`train.learning_rate`: got 0; wanted: more than 0"),
        ("train.learning_rate=.inf", "`train.learning_rate`: got inf; wanted: a finite number"),
        ("train.learning_rate=.nan", "`train.learning_rate`: got nan; wanted: a finite number"),
        ("train.learning_rate=1e400", "`train.learning_rate`: got inf; wanted: a finite number"),
        ("lora.lora_dropout=1", "`lora.lora_dropout`: got 1; wanted: less than 1"),
        ("model.load_in_4bit=maybe", "`model.load_in_4bit`: got 'maybe'; wanted: true or false"),
        ("data.paths=a.xml", "`data.paths`: got 'a.xml'; wanted: a list of text; for one value write [a.xml]"),
        (
            "lora.target_modules=q_proj",
            "`lora.target_modules`: got 'q_proj'; wanted: a list of text or all-linear; for one value write [q_proj]",
        ),
        ("lora.rank_pattern=8", "`lora.rank_pattern`: got 8; wanted: `name: value` pairs, each value a whole number"),
        ("lora.layers_to_transform=[0, x]", "`lora.layers_to_transform.1`: got 'x'; wanted: a whole number"),
        ("evaluate.split=train", "`evaluate.split`: got 'train'; wanted: one of validation, test"),
    ],
)
def test_a_wrong_value_is_shown_with_what_would_be_right(override: str, line: str) -> None:
    assert complaints(None, override) == [line]


def test_a_long_value_is_cut_short() -> None:
    (line,) = complaints(None, "train.seed=" + "x" * 500)
    assert len(line) < 150


def test_both_quantizations_are_refused(write: Write) -> None:
    assert "cannot both be true" in complaints(None, "model.load_in_8bit=true")[0]
    settings = parse(None, ["model.load_in_8bit=true", "model.load_in_4bit=false"])
    assert settings.model.quantization == "8bit"
    assert parse().model.quantization == "4bit"
    assert parse(None, ["model.load_in_4bit=false"]).model.quantization == "none"


def test_shares_must_leave_something_to_train_on() -> None:
    assert complaints(None, "data.validation_share=0.5", "data.test_share=0.5")[0].startswith("`data`: ")


def test_a_key_given_twice_is_reported_with_both_lines(write: Write) -> None:
    error = refusal(path := write("train:\n  seed: 1\n  max_length: 9\n  seed: 2\n"))
    assert "'seed' is on lines 2 and 4" in error.what
    assert error.where == f"{path}:4"
    assert "lines 1 and 3" in refusal(write("train:\n  seed: 1\ntrain:\n  seed: 1\n")).what


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("train:\n\tseed: 1\n", 2, "cannot start any token"),
        ("train:\n  seed: [1\n", 3, "expected"),
        ("train:\n  seed: *other\n", 2, "undefined alias"),
        ("train:\n seed: 1\n  max_length: 3\n", 3, "mapping values"),
        ("1: 2\n", 1, "the key 1 is not a plain word"),
        ("train:\n  on: 2\n", 2, "the key on is not a plain word"),
        ("? [a, b]\n: 1\n", 1, "not a plain word"),
        ("<<: {seed: 1}\n", 1, "not a plain word"),
        ("train: !!python/object/apply:os.getcwd []\n", 1, "is not allowed"),
        ("train:\n  seed: !number 1\n", 2, "!number"),
        ("train:\n---\nmodel:\n", 2, "another document"),
        ("train:\n  output_dir: a\x00b\n", 2, "not text"),
    ],
)
def test_what_is_not_yaml_is_reported_with_its_line(write: Write, text: str, line: int, problem: str) -> None:
    error = refusal(path := write(text))
    assert error.what.startswith("not valid YAML: ")
    assert problem in error.what
    assert error.where == f"{path}:{line}"


def test_a_file_that_refers_to_itself_is_refused(write: Write) -> None:
    assert "refers to itself" in refusal(write("data: &x\n  paths: [*x]\n")).what


def test_a_file_without_sections_is_refused(write: Write) -> None:
    assert "holds a list, not sections" in refusal(write("- train\n")).what
    assert "holds one value, not sections" in refusal(write("train\n")).what


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin1.yaml"
    path.write_bytes("adapter:\n  description: café\n".encode("latin-1"))
    assert "not UTF-8" in refusal(path).what


def test_a_missing_file_is_an_input_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(InputMissingError) as caught:
            parse(path)
        assert caught.value.exit_code == 66
        assert caught.value.where == str(path)


@pytest.mark.parametrize("argument", ["seed", "=3", "train.=3", "train..seed=3", ".seed=1"])
def test_an_argument_of_another_form_is_shown_the_right_one(argument: str) -> None:
    error = refusal(None, argument)
    assert "not of the form section.key=value" in error.what
    assert error.fix == "for example train.learning_rate=1e-4"


def test_an_override_below_a_value_is_refused(write: Write) -> None:
    path = write("train:\n  seed: 3\n")
    assert "`train.seed` is a value, not a section" in refusal(path, "train.seed.x=1").what


def test_an_override_that_is_not_yaml_is_shown(write: Write) -> None:
    error = refusal(None, "data.paths=[a")
    assert error.what.startswith("`data.paths=[a`: not valid YAML")
    assert error.where == "the command line"


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        parse().train.seed = 3  # type: ignore[misc]


def test_what_is_shown_is_read_back_the_same(write: Write) -> None:
    settings = parse(None, ["model.revision=12e45", "data.paths=[on, 1e5]", "train.trainer_args={a: '1e5', b: 1e-8}"])
    assert parse(write(to_yaml(settings.model_dump(mode="json")))) == settings
    assert parse(write(json.dumps(settings.model_dump(mode="json")))) == settings


def test_every_setting_is_documented() -> None:
    for title, field in Settings.model_fields.items():
        for name in _fields(field.annotation):
            description = field.annotation.model_fields[name].description  # type: ignore[union-attr]
            assert description and re.match(r"^[A-Za-z`].*[.]$", description, re.S), f"{title}.{name}: {description}"


def test_every_default_is_one_that_is_allowed() -> None:
    assert Settings.model_validate(Settings().model_dump()) == Settings()
