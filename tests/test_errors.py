"""Each error has its exit code, its three lines, and survives the way between processes."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

from lora_med import errors
from lora_med.errors import LoraMedError

# The table of the command line's documentation, written out by hand.
EXIT_CODES = {
    "LoraMedError": (70, "E070-internal"),
    "SettingsError": (2, "E002-settings"),
    "UsageError": (2, "E002-usage"),
    "DataError": (65, "E065-data"),
    "PreflightError": (65, "E065-preflight"),
    "InputMissingError": (66, "E066-input-missing"),
    "DependencyMissingError": (69, "E069-dependency-missing"),
    "OutputError": (73, "E073-output"),
    "DiskError": (74, "E074-disk"),
    "StoppedError": (75, "E075-stopped"),
    "IntegrityError": (76, "E076-integrity"),
    "BaseMismatchError": (76, "E076-base-mismatch"),
    "DisagreementError": (76, "E076-disagreement"),
    "NotPermittedError": (77, "E077-not-permitted"),
    "DivergedError": (78, "E078-diverged"),
    "WorseThanBaseError": (78, "E078-worse-than-base"),
}


def every_kind() -> list[type[LoraMedError]]:
    kinds, found = [LoraMedError], []
    while kinds:
        kind = kinds.pop()
        found.append(kind)
        kinds += kind.__subclasses__()
    return [kind for kind in found if kind.__module__ == errors.__name__]


def test_the_table_names_every_error_there_is() -> None:
    assert sorted(kind.__name__ for kind in every_kind()) == sorted(EXIT_CODES)


@pytest.mark.parametrize("name", EXIT_CODES)
def test_each_error_has_its_exit_code_and_identifier(name: str) -> None:
    error = getattr(errors, name)("something was wrong")
    assert (error.exit_code, error.code) == EXIT_CODES[name]


def test_the_tree_at_the_top_of_the_file_is_the_one_of_the_classes() -> None:
    drawn = re.findall(r"^ {4}[|` -]*(\w+Error) +(\d+)", errors.__doc__ or "", re.M)
    assert {name: int(code) for name, code in drawn} == {name: code for name, (code, _) in EXIT_CODES.items()}


def test_a_message_has_three_lines() -> None:
    error = errors.BaseMismatchError("made for another base", where="adapters/qa", fix="lora-med adapters show qa")
    assert str(error).split("\n") == [
        "error[E076-base-mismatch]: made for another base",
        "where: adapters/qa",
        "fix: lora-med adapters show qa",
    ]


def test_a_message_leaves_out_what_is_not_known() -> None:
    assert str(errors.DataError("no rows")) == "error[E065-data]: no rows"


@pytest.mark.parametrize("kind", every_kind(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("travel", [lambda error: pickle.loads(pickle.dumps(error)), copy.deepcopy])
def test_an_error_survives_pickling_and_copying(kind: type[LoraMedError], travel: type) -> None:
    error = kind("what", where="where", fix="fix")
    back = travel(error)
    assert type(back) is kind
    assert (back.what, back.where, back.fix, str(back)) == ("what", "where", "fix", str(error))


def test_a_base_mismatch_is_caught_as_a_matter_of_integrity() -> None:
    with pytest.raises(errors.IntegrityError):
        raise errors.BaseMismatchError("x")
    with pytest.raises(errors.DataError):
        raise errors.PreflightError("x")
