"""The classes of commands: groups that load their commands late, name a near command, and mix commands with settings.

Every command gets `--quiet`, `--verbose` and `--debug` here; `main` reads `--debug` and `--json` for its errors.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from lora_med.cli.terminal import print_text
from lora_med.config.near_names import nearest
from lora_med.errors import UsageError
from lora_med.run import set_verbosity

_Command: Any = TyperCommand.__mro__[1]  # click's Command, which typer imports from click or brings itself
WIDTH = {"max_content_width": 110}


def _quiet(value: bool) -> None:
    if value:
        set_verbosity(logging.WARNING)


def _verbose(value: bool) -> None:
    if value:
        set_verbosity(logging.DEBUG)


def _common(
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Log warnings and errors only.", callback=_quiet, expose_value=False)
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Log details too.", callback=_verbose, expose_value=False)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", expose_value=False)] = False,
) -> None:
    """The options of every command; their values are not passed to it."""


def _common_options() -> list[Any]:
    app = typer.Typer(add_completion=False)
    app.command()(_common)
    return get_command(app).params


def with_common_options(command: Any) -> Any:
    """`command` and the commands below it, with the options that every command has."""
    children = getattr(command, "commands", {})
    for child in children.values():
        with_common_options(child)
    if not children or command.invoke_without_command:
        command.params += _common_options()
    command.context_settings = {**WIDTH, **(command.context_settings or {})}
    return command


def given_again(context: Any, *, but: str) -> list[str]:
    """The options that the user gave a command, with its settings, as words of a command line; `but` one of them."""
    words: list[str] = []
    for option in context.command.params:
        given_by = context.get_parameter_source(option.name)
        if option.name == but or given_by is None or given_by.name != "COMMANDLINE":
            continue
        value = context.params.get(option.name, True)
        for each in value if isinstance(value, list | tuple) else [value]:
            words += option.opts[:1] if option.is_flag else [option.opts[0], str(each)]
    return [*words, *context.args]


class CommandGroup(TyperGroup):
    """A group that shows its help without arguments, and names the near command for an unknown one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not self.invoke_without_command and not ctx.resilient_parsing:
            print_text(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing and not name.startswith("-"):
            raise self.unknown_command(ctx, name)
        return super().resolve_command(ctx, args)

    def unknown_command(self, ctx: Any, name: str) -> UsageError:
        """The error for a name that is no command of this group."""
        names = self.list_commands(ctx)
        near = nearest(name, names)
        hint = f"did you mean {near!r}?" if near else f"known: {', '.join(names)}"
        return UsageError(f"{ctx.command_path} has no command {name!r}; {hint}", fix=f"{ctx.command_path} --help")


class SettingsGroup(CommandGroup):
    """A command that takes `key=value` settings and also has subcommands: `eval data.fold=1`, `eval compare A B`.

    The first word decides: the name of a subcommand runs it. In all other cases the words left over are settings, in
    `ctx.args`, each of which must contain `=`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] in self.commands:
            return super().parse_args(ctx, args)
        ctx.allow_interspersed_args = True
        _Command.parse_args(self, ctx, args)
        stray = next((word for word in ctx.args if not self.is_argument(word)), None)
        if stray is not None and not ctx.resilient_parsing:
            raise self.unknown_command(ctx, stray)
        return ctx.args

    def is_argument(self, word: str) -> bool:
        """Whether a word that names no subcommand may stand: a setting."""
        return "=" in word

    def unknown_command(self, ctx: Any, name: str) -> UsageError:
        if name in self.commands:
            path = f"{ctx.command_path} {name}"
            return UsageError(f"the subcommand {name!r} must be the first word", fix=f"{path} --help")
        return super().unknown_command(ctx, name)


class RootGroup(CommandGroup):
    """The root: a table from name to module and help line; a module is imported when its command is called."""

    table: ClassVar[Mapping[str, tuple[str, str]]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.table:
            return None
        if cmd_name not in self.commands:
            module = importlib.import_module(self.table[cmd_name][0])
            command = with_common_options(get_command(module.app))
            command.name = cmd_name
            self.commands[cmd_name] = command
        return self.commands[cmd_name]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.table.items()])


class AdapterCommand(TyperCommand):
    """A command about one adapter: its first argument NAME may be written `--adapter NAME` too."""

    def get_params(self, ctx: Any) -> list[Any]:
        name, *others = super().get_params(ctx)
        return [name, *_adapter_option(), *others]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = list(args)
        for index, word in enumerate(args):
            flag, sign, value = word.partition("=")
            if flag == "--adapter" and (sign or index + 1 < len(args)):
                rest = [value if sign else args[index + 1], *args[:index], *args[index + 1 + (not sign) :]]
                break
            if word == "--":
                break
        return super().parse_args(ctx, rest)


def _adapter_option() -> list[Any]:
    def adapter_option(
        adapter: Annotated[
            str | None,
            typer.Option(
                "--adapter",
                help="The same as NAME.",
                expose_value=False,
                autocompletion=complete_adapter,
                metavar="NAME",
            ),
        ] = None,
    ) -> None:
        """Only its option is used."""

    app = typer.Typer(add_completion=False)
    app.command()(adapter_option)
    return get_command(app).params


def complete_adapter(incomplete: str) -> list[str]:
    """The names in the folder `adapters` that begin with what was typed, for the shell's completion."""
    folders = Path("adapters").glob(f"{incomplete}*/card.json")
    return sorted(path.parent.name for path in folders)
