"""What several commands share: `--config`, `--debug`, and the exit code of a batch of files."""

from __future__ import annotations

import difflib
import shlex
import sys
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from birdinv.errors import BirdinvError

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path, file_okay=False)
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
        raise BirdinvError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise BirdinvError(f"{path} is not TOML: {error}") from error
    from .main import COMMANDS

    # One file may serve several commands: a table named after a command is that command's alone.
    own = content.pop(ctx.command.name or "", {}) if content else {}
    for name in COMMANDS:
        content.pop(name, None)
    if not isinstance(own, dict):
        raise BirdinvError(f"{path}: [{ctx.command.name}] is not a table")
    known = {
        param.name: param
        for param in ctx.command.params
        if isinstance(param, click.Option) and param.name not in ("config", "debug", "help")
    }
    defaults: dict[str, Any] = {}
    for key, value in {**content, **own}.items():
        name = key.replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, [str(k) for k in known], 1)
            guess = f"did you mean {near[0].replace('_', '-')}?" if near else "see --help"
            raise BirdinvError(
                f"{path} sets {key!r}, which `birdinv {ctx.command.name}` does not know; {guess}"
            )
        defaults[name] = value
    ctx.default_map = {**(ctx.default_map or {}), **defaults}


def command_line() -> str:
    """The command as it was typed, for `run.json`."""
    return shlex.join(["birdinv", *sys.argv[1:]])


def batch_exit_code(statuses: Counter[str]) -> int:
    """0 all fully read · 3 some were not · 4 none was read at all."""
    if not statuses["ok"] and not statuses["partial"]:
        return 4
    return 0 if set(statuses) <= {"ok"} else 3


def summary(statuses: Counter[str]) -> str:
    """`145 inputs: 143 ok, 1 partial, 0 empty, 1 unreadable`."""
    kinds = ", ".join(
        f"{statuses[name]} {name}" for name in ("ok", "partial", "empty", "unreadable")
    )
    return f"{sum(statuses.values())} inputs: {kinds}"


def warn(text: str) -> None:
    """A line on stderr that does not stop anything."""
    click.echo(f"birdinv: note: {text}", err=True)
