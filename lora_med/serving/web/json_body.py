"""The body of a request: one JSON object, read strictly, so that nothing in it is dropped without a word."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from lora_med.serving.web.error_bodies import ApiError, shown

SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # only as an escape can a body that is UTF-8 hold half of a pair


def parse_object(body: bytes) -> dict[str, Any]:
    """The object in a body.

    Raises:
        ApiError: 400 if it is not UTF-8 JSON, not an object, names a key twice, or holds NaN or half a surrogate pair.
    """
    try:
        text = body.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse_constant, parse_float=_finite)
    except ApiError:
        raise
    except UnicodeDecodeError as error:
        raise _not_json(f"it is not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise _not_json(f"{error.msg} at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise _not_json("it is nested too deeply") from error
    except ValueError as error:  # a number with thousands of digits
        raise _not_json("a number in it is too long") from error
    if not isinstance(value, dict):
        raise _not_json(f"expected an object, got {type(value).__name__}")
    if SURROGATE.search(body):
        _check_text(value)
    return value


def _not_json(reason: str) -> ApiError:
    return ApiError(400, f"the body is not the JSON that is needed: {reason}", code="invalid_json")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ApiError(
                400, f"the key {shown(key)} is in the body twice", code="invalid_json", param=shown(key)[1:-1]
            )
        found[key] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise _not_json(f"{name} is not a JSON number")


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise _not_json("a number in it is too large")
    return value


def _check_text(value: Any) -> None:
    """Refuse half of a surrogate pair, which no tokenizer can read; the walk needs no recursion."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str) and not one.isascii():
            try:
                one.encode("utf-8")
            except UnicodeEncodeError as error:
                raise _not_json("a text in it holds half of a surrogate pair") from error
