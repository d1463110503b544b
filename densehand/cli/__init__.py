"""The command `densehand`.

One file a command: every module of this package with a function `register(app)` is a command (or a group of them) and
is found by itself. The modules are imported on every start, so what is heavy (torch, cv2, numpy) is imported inside the
functions.

Exit status: 0 done; 1 something given could not be used (named on stderr, the rest is done); 2 the command line itself
is wrong; 130 interrupted.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import Any

import typer

from densehand.cli.common import say_error
from densehand.errors import DensehandError

_FIRST = ("predict", "render", "models", "hand")  # the order of the help; others follow by name

# click's class, which recent typer carries within itself
_UsageError: Any = typer.BadParameter.__mro__[1]


def build_app() -> typer.Typer:
    """The application with every command in its place."""
    app = typer.Typer(
        name="densehand",
        help="Full 3D hands (mesh, joints, pose, shape, mask, depth) from an ordinary photo.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(
        version: bool = typer.Option(
            False, "--version", help="Print the version and exit.", is_eager=True, callback=_version
        ),
    ) -> None:
        pass

    names = [module.name for module in pkgutil.iter_modules(__path__)]
    for name in sorted(names, key=lambda n: (_FIRST.index(n) if n in _FIRST else len(_FIRST), n)):
        module = importlib.import_module(f"{__name__}.{name}")
        if hasattr(module, "register"):
            module.register(app)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from densehand import __version__

        typer.echo(f"densehand {__version__}")
        raise typer.Exit


INTERRUPTED = 130  # the shell's status of Ctrl-C
STOPPED = "interrupted; files written so far are whole"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run the command line; the exit status. Errors are one line on stderr each."""
    try:
        result = build_app()(arguments, prog_name="densehand", standalone_mode=False)
        if result == INTERRUPTED:  # as typer puts it
            say_error(STOPPED)
        return result if isinstance(result, int) else 0
    except DensehandError as error:
        say_error(str(error))
        return 1
    except _UsageError as error:
        message = error.format_message()
        if message:  # none where a group without a command has just printed its help
            context = getattr(error, "ctx", None)
            say_error(f"{message.rstrip('.')}; see '{context.command_path if context else 'densehand'} --help'")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        say_error(STOPPED)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone (`| head`)
        sys.stderr.close()
        return 1
