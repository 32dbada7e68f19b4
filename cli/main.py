"""`birdinv`: the group of commands, and what the outside world sees of errors."""

from __future__ import annotations

import difflib
import importlib
import io
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import click

from birdinv.errors import BirdinvError

# fmt: off
COMMANDS = (
    "demo", "segment", "train", "eval", "suggest", "predict", "report", "inspect", "export",
    "data", "reproduce",
)
# fmt: on


class LazyGroup(click.Group):
    """Imports a command's file when it is asked for; torch comes later still."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order one uses them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{cmd_name}", __package__)
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` begin with; a misspelt one is told what it is near to."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            if not near or "did you mean" in error.message.lower():
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from error


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="birdinv")
def birdinv() -> None:
    """Learn bird song from few labels and many unlabelled recordings.

    \b
    birdinv demo                             the whole path on synthetic birds
    birdinv segment recordings/ -o store     recordings -> store
    birdinv train store -o run               store -> trained network
    birdinv eval run                         honest metrics
    birdinv suggest run -n 20                recordings to label next
    birdinv predict run field/ -o tables     tables of detections
    birdinv inspect run dawn.wav -o inside   what the network listens to
    birdinv data list                        data sets of the papers
    birdinv reproduce inv-table2             a table of them, a cell at a time

    \b
    Exit codes:
      0 done                 3 done, but some files were not fully read
      1 failed               4 nothing could be read
      2 wrong usage        130 interrupted, state saved
    """


def main(argv: list[str] | None = None) -> None:
    """Runs the command line and exits; a user sees one sentence, a traceback only with --debug."""
    argv = sys.argv[1:] if argv is None else argv
    state: dict[str, Any] = {"debug": False, "argv": list(argv)}
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names that the terminal's encoding does not have
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = _one_sentence
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` cleans up as Ctrl-C does
    try:
        code = birdinv.main(list(argv), prog_name="birdinv", standalone_mode=False, obj=state)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except BrokenPipeError:  # `birdinv … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except (KeyboardInterrupt, click.Abort):
        code = _fail("interrupted", 130, state)
    except BirdinvError as error:
        code = _fail(str(error), error.exit_code, state)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        code = _fail(
            f"{where}{error.strerror or error}; mend that (space, permissions, path) and run again",
            1,
            state,
        )
    except Exception as error:
        code = _fail(
            f"unexpected {type(error).__name__}: {error}; run again with --debug and report what "
            "it prints",
            1,
            state,
        )
    sys.exit(code if isinstance(code, int) else 0)


def _one_sentence(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """A warning of ours without its place in the code; others as Python has them."""
    if "birdinv" in Path(filename).parts:
        return f"birdinv: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def _fail(sentence: str, code: int, state: dict[str, Any]) -> int:
    if state["debug"]:
        import traceback

        traceback.print_exc()
    lines = sentence.splitlines()
    pointing = 2 if lines and lines[-1].strip() == "^" else 0  # at a character of the line above
    said, shown = lines[: len(lines) - pointing], lines[len(lines) - pointing :]
    one_line = " ".join(line.strip() for line in said)
    print("\n".join([f"birdinv: {one_line}", *shown]), file=sys.stderr)
    return code
