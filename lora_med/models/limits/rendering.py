"""Chat templates are programs of strangers: rendered with limits on steps, memory, output and time, in any thread.

transformers renders them in jinja2's sandbox, which keeps a template from files and code, but not from `'a' * 10**10`
or nested loops. `limit_templates` puts an environment in its place that is the same but counts: loops and calls as
steps, and each text or list that an operator, method or filter makes, before it is made. A template that stays within
the limits renders the same text.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from functools import lru_cache, wraps
from typing import Any

from jinja2 import nodes
from jinja2.environment import Template
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from lora_med.models.limits.budget import (
    ENTRY,
    LARGEST_WIDTH,
    MOST_BITS,
    begin,
    check_integer,
    current,
    formatted,
    joined,
    replaced,
    split_size,
    weight,
)

LONGEST_SOURCE = 256_000
WITHOUT = (
    "urlize",
    "striptags",
    "xmlattr",
    "pprint",
)  # filters whose patterns can run for minutes
LIGHT = {"length", "count", "trim", "first", "last", "default", "d", "upper", "lower", "capitalize", "items"}
LIGHT |= {"select", "selectattr", "reject", "rejectattr", "map", "int", "float", "safe", "abs", "round", "attr"}
COUNTED, WEIGHED, CONCATENATED = "lora_med counted", "lora_med weighed", "lora_med concatenated"  # filters of ours
LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
WIDTHS = ("ljust", "rjust", "center", "zfill", "expandtabs", "to_bytes")
NUMBERS = (int, float)
BUILTIN = (str, bytes, int, float, list, tuple, dict, set, range)


def limit_templates() -> None:
    """Let transformers render every chat template of this process with limits."""
    from transformers.utils import chat_template_utils

    if chat_template_utils._compile_jinja_template is not compile_limited:
        chat_template_utils._compile_jinja_template = compile_limited


@lru_cache(maxsize=64)
def compile_limited(source: str) -> Any:
    """The template compiled in a copy of transformers' environment that counts what a rendering uses.

    Raises:
        IntegrityError: the template is too long.
    """
    from transformers.utils.chat_template_utils import _cached_compile_jinja_template

    begin(source)
    if len(source) > LONGEST_SOURCE:
        current().refuse(f"has {len(source):,} characters, more than the limit of {LONGEST_SOURCE:,},")
    model = _cached_compile_jinja_template("").environment
    kinds = [type(extension) for extension in model.extensions.values()]
    environment = LimitedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=kinds)
    environment.filters = {name: _limited(name, use) for name, use in model.filters.items() if name not in WITHOUT}
    environment.filters |= {COUNTED: _counted, WEIGHED: held, CONCATENATED: _concatenated}
    environment.globals = {name: value for name, value in model.globals.items() if name != "lipsum"}
    environment.source_length = len(source)
    environment.source = source
    return environment.from_string(source)


class LimitedTemplate(Template):
    """A template whose every rendering has a budget of its own."""

    def new_context(self, *arguments: Any, **options: Any) -> Any:
        """The context of a new rendering."""
        begin(self.environment.source)  # pyright: ignore[reportAttributeAccessIssue] - ours
        return super().new_context(*arguments, **options)


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox, with what a template makes and how often it loops counted."""

    template_class = LimitedTemplate
    intercepted_binops = frozenset({"+", "*", "**", "%"})
    source = ""
    source_length = 0

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, finalize=_output)

    def _generate(self, source: Any, *arguments: Any, **options: Any) -> str:
        return super()._generate(_Counting().visit(source), *arguments, **options)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """The result of an operator; its size is counted, before it is made where it can be large."""
        return BINARY[operator](left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a macro, a method or a function; what it returns is counted."""
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)  # jinja2 wraps str.format
        if isinstance(owner, BUILTIN):
            current().spend(_method_size(__obj.__name__, owner, args, kwargs))
        elif isinstance(__obj, Macro | LoopContext):
            current().spend(__self.source_length)
        else:
            for value in (*args, *kwargs.values()):
                check_integer(value)
        return held(super().call(__context, __obj, *args, **kwargs))


def _counted(values: Any, text: int) -> Iterator[Any]:
    """The values of a loop, each a step that writes at most `text` characters of the template itself."""
    spend = current().spend
    for value in values:
        spend(text)
        yield value


def _concatenated(first: Any, *others: Any) -> str:
    """What `~` makes."""
    return held("".join(map(_text, (first, *others))))


class _Counting(NodeTransformer):
    """Loops are counted, and `~`, lists and dictionaries are weighed."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        text = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        text += sum(len(str(const.value)) for const in node.find_all(nodes.Const))
        node.iter = _filter(COUNTED, node.iter, [nodes.Const(text)])
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter(CONCATENATED, node.nodes[0], node.nodes[1:])

    def visit_List(self, node: nodes.Node) -> nodes.Node:
        self.generic_visit(node)
        return _filter(WEIGHED, node, []) if node.find(nodes.Name) else node

    visit_Dict = visit_List

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return self.visit_List(node) if node.ctx == "load" else node


def _filter(name: str, node: nodes.Node, arguments: list[Any]) -> nodes.Node:
    return nodes.Filter(node, name, arguments, [], None, None).set_lineno(node.lineno)


def held(value: Any) -> Any:
    """`value`, its size counted."""
    if isinstance(value, str):
        current().spend(len(value))
    elif isinstance(value, list | tuple | dict | set):
        current().spend(weight(value))
    return value


def _text(value: Any) -> str:
    """`value` as text, weighed first: a list that holds itself twice, ten times over, is long only as text."""
    if not isinstance(value, str | int | float | Undefined):
        current().spend(weight(value))
    return str(value)


def _output(value: Any) -> Any:
    """What is written into the result."""
    text = value if isinstance(value, str) else _text(value)
    current().spend(len(text))
    return text


def _add(left: Any, right: Any) -> Any:
    result = left + right
    if not isinstance(result, NUMBERS):
        current().spend(len(result))
    return result


def _times(left: Any, right: Any) -> Any:
    for many, count in ((left, right), (right, left)):
        if isinstance(many, str | bytes | list | tuple) and isinstance(count, int):
            current().spend(weight(many) * max(count, 0))
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > MOST_BITS:
        current().refuse(f"computes with integers of more than {MOST_BITS:,} bits")
    return left * right


def _power(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int) and max(left.bit_length(), 1) * abs(right) > MOST_BITS:
        current().refuse(f"computes with integers of more than {MOST_BITS:,} bits")
    return left**right


def _remainder(left: Any, right: Any) -> Any:
    if isinstance(left, str | bytes):
        values = right if isinstance(right, tuple) else (right.values() if isinstance(right, dict) else (right,))
        current().spend(formatted(str(left), values, "%"))
    return left % right


BINARY: dict[str, Callable[[Any, Any], Any]] = {"+": _add, "*": _times, "**": _power, "%": _remainder}
BINARY |= {"-": operator.sub, "/": operator.truediv, "//": operator.floordiv}


def _method_size(name: str, value: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> int:
    """The most characters that a method of a built-in value makes; absurd widths and codecs are refused."""
    given = (*arguments, *options.values())
    if name in WIDTHS:
        for argument in given:
            check_integer(argument)
    if name in ("encode", "decode") and given and str(given[0]).lower() not in ("utf-8", "utf8", "ascii"):
        current().refuse("converts to an encoding other than UTF-8")
    size = len(value) if hasattr(value, "__len__") else 1
    if name == "replace" and len(arguments) > 1:
        return replaced(value, *arguments[:2])
    if name == "join" and isinstance(value, str) and arguments and isinstance(arguments[0], list | tuple | str | dict):
        return joined(value, arguments[0])
    if name in ("format", "format_map"):
        values = [*given, *(given[0].values() if given and isinstance(given[0], dict) else ())]
        return formatted(value, values, "{")
    if name == "translate":
        return size * max(map(weight, given[0].values() if given and isinstance(given[0], dict) else given), default=1)
    if name in ("split", "rsplit"):
        return split_size(value, given[:1] if given and given[0] is not None else None)
    if name == "splitlines":
        return split_size(value, LINE_ENDS)
    if name == "expandtabs":
        return size + value.count("\t") * (given[0] if given and isinstance(given[0], int) else 8)
    return size


def _limited(name: str, use: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of jinja2 whose arguments and result are counted."""
    first = 1 if hasattr(use, "jinja_pass_arg") else 0  # it gets the context, or the like, before the value

    @wraps(use)
    def limited(*arguments: Any, **options: Any) -> Any:
        before, values = arguments[:first], list(arguments[first:])
        for value in (*values[1:], *options.values()):
            check_integer(value, 1000 if name in ("tojson", "indent") else LARGEST_WIDTH)
        if name not in LIGHT and values:
            if hasattr(values[0], "__next__"):
                values[0] = list(values[0])
            current().spend(_filter_size(name, values, list(options.values())))
        return held(use(*before, *values, **options))

    return limited


def _filter_size(name: str, values: list[Any], options: list[Any]) -> int:
    size, others = weight(values[0]), [*values[1:], *options]
    text = max((len(one) for one in others if isinstance(one, str)), default=0)
    number = max((abs(one) for one in others if isinstance(one, int)), default=0)
    if name == "format":
        return formatted(str(values[0]), others, "%")
    if name == "replace" and len(others) > 1:
        return replaced(str(values[0]), str(others[0]), str(others[1]))
    if name in ("title", "urlencode", "list", "wordcount") and isinstance(values[0], str):
        return ENTRY * size
    if name in ("join", "wordwrap", "tojson", "batch"):
        return size * (1 + text + (number if name == "tojson" else 0)) + number
    if name == "indent":
        return size + (str(values[0]).count("\n") + 1) * max(text, number)
    return size + number + text
