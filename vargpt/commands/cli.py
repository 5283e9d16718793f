"""`vargpt <command>`: talk, draw, ask, edit, measure, look around. Only assembled here, from one file per family.

What a user can get wrong ends in one line on stderr and exit code 2; `--debug` shows where it came from.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vargpt.commands import asking, draw, learn, machine, measure, opening, web_page
from vargpt.commands.serve import add_serve

MISTAKE = 2  # exit code
MISTAKES = (ValueError, OSError, ImportError)  # what a user can cause: bad values, missing files, missing extras
COMMANDS = (
    asking.chat, web_page.ui, draw.draw, draw.edit, asking.ask, learn.finetune, learn.merge_adapter, measure.bench,
    learn.prefer, machine.doctor,
)  # fmt: skip


class PlainErrors(TyperGroup):
    """The one place where an error becomes a message: a mistake of the user ends in one line and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of our output has closed it, as in `vargpt doctor | head -3`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except MISTAKES as error:
            if ctx.params.get("debug"):
                raise
            typer.echo(f"vargpt: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(MISTAKE) from None
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(cls=PlainErrors, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for command in COMMANDS:
    app.command()(command)
add_serve(app, opening.loading, opening.open_engine)
evaluate = typer.Typer(no_args_is_help=True, help="Measure a model.")
evaluate.command("storybook")(measure.evaluate_storybook)
evaluate.command("compare")(measure.compare_reports)
app.add_typer(evaluate, name="evaluate")


def show_version(asked: bool) -> None:
    """Prints name and version and ends, before a command is missed."""
    if asked:
        from vargpt.pictures.album import software

        typer.echo(software())
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=show_version)
    ] = False,
) -> None:
    """One conversation that understands pictures, draws them and edits them."""


def main() -> None:
    # Read when torch is loaded. Threads that spin while they wait for one another are slowed to a fifth as soon as
    # something else needs a processor; beside the page, a browser does. So there they soon sleep (docs/speed.md).
    if sys.argv[1:2] == ["ui"] and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # What transformers will call otherwise one day is news for those who write this, not for those who draw.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    app()
