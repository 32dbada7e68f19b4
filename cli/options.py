"""What several commands share: `--config`, `--debug`, and the exit code of a batch of files."""

from __future__ import annotations

import difflib
import shlex
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

LISTED = 20  # files not fully read, before the rest is left to the table
ANY_PATH = click.Path(path_type=Path)


def common(function: F) -> F:
    """Adds `--config` and `--debug` to a command."""
    for option in (
        click.option(
            "--debug",
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_set_debug,
            help="Show a traceback when something fails.",
        ),
        click.option(
            "--config",
            type=click.Path(path_type=Path, dir_okay=False),
            expose_value=False,
            is_eager=True,
            callback=_read_config,
            help="TOML file with defaults for these options; the command line wins.",
        ),
    ):
        function = option(function)
    return function


def _set_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(dict)["debug"] = True


def _read_config(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror or error}", ctx) from error
    except ValueError as error:
        raise click.UsageError(f"{path} is not TOML: {error}", ctx) from error
    from .main import COMMANDS

    # One file may serve several commands: a table named after a command is that command's alone.
    own: dict[str, Any] = {}
    for command in COMMANDS:
        if isinstance(content.get(command), dict):  # `segment = 0.5` is an option
            table = content.pop(command)
            own = table if command == ctx.command.name else own
    known = {
        name.removeprefix("--"): param
        for param in ctx.command.params
        if isinstance(param, click.Option) and param.name not in ("config", "debug", "help")
        for name in param.opts
        if name.startswith("--")
    }
    defaults: dict[str, Any] = {}
    for key, value in {**content, **own}.items():
        name = key.replace("_", "-")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            guess = f"did you mean {near[0]}?" if near else "see --help"
            raise click.UsageError(
                f"{path} sets {key!r}, which `birdinv {ctx.command.name}` does not know; {guess}",
                ctx,
            )
        defaults[str(known[name].name)] = _as_typed(value, known[name])
    ctx.default_map = {**(ctx.default_map or {}), **defaults}


def _as_typed(value: Any, option: click.Option) -> Any:
    """A TOML value as it would stand on the command line, so that 2.5 epochs are refused there."""
    if isinstance(value, bool) and option.is_flag:
        return value
    if isinstance(value, list):
        texts = [str(item) for item in value]
        return texts if option.multiple or option.nargs != 1 else ",".join(texts)
    return [str(value)] if option.multiple else str(value)


def command_line() -> str:
    """The command as it was typed, for `run.json`."""
    return shlex.join(["birdinv", *click.get_current_context().find_root().obj["argv"]])


def batch_exit_code(statuses: Counter[str]) -> int:
    """0 all fully read · 3 some were not · 4 none was read at all."""
    if not statuses["ok"] and not statuses["partial"]:
        return 4
    return 0 if set(statuses) <= {"ok"} else 3


def summary(statuses: Counter[str]) -> str:
    """`145 inputs: 143 ok, 1 partial, 0 empty, 1 unreadable`."""
    from birdinv.audio.reading import STATUSES

    kinds = ", ".join(f"{statuses[name]} {name}" for name in STATUSES)
    return f"{sum(statuses.values())} inputs: {kinds}"


def say_unread(files: Iterable[tuple[str, str, str]], table: Path) -> None:
    """A line on stderr for each (status, file, reason) not fully read; `table` has all of them."""
    unread = [each for each in files if each[0] != "ok"]
    for status, file, reason in unread[:LISTED]:
        click.echo(f"{status:<10} {file}: {reason}", err=True)
    if len(unread) > LISTED:
        click.echo(f"… and {len(unread) - LISTED} more, see {table}", err=True)


def warn(text: str) -> None:
    """A line on stderr that does not stop anything."""
    click.echo(f"birdinv: note: {text}", err=True)
