"""The command line: a command parses, calls one function of the pipeline, and prints.

    here                 the list of commands, and where the program starts
    options              every option, once, as a named type; reading, pointing, refining, rendering,
                         reporting, fetching and writing hold those that go with one task
    words                the words that an option takes where there are only a few
    parsing              the texts of options -> values
    shell                what all commands share: verbosity, progress, exit codes
    progress, failures   how a command says how far it is, and how it ends
    tables               results for people to read
    surroundings         puts right what containers and batch systems do to a process

and one module for each command. Standard output holds results only; all else goes to standard error. Nothing
that computes is imported outside the commands' bodies, so that help appears at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from typer.core import TyperGroup

import vemseg
from vemseg.cli import options, words
from vemseg.cli.diagnose import diagnose
from vemseg.cli.evaluate import evaluate
from vemseg.cli.failures import CLOSED_PIPE, KEYBOARD, MISUSE, exit_codes, misused
from vemseg.cli.features import cluster, embed
from vemseg.cli.fetch import betaseg, fetch_list, openorganelle, phantom, weights
from vemseg.cli.objects import objects
from vemseg.cli.refine import refine
from vemseg.cli.render import render
from vemseg.cli.report import report
from vemseg.cli.segment import segment
from vemseg.cli.shell import as_command, set_up
from vemseg.cli.surroundings import settle
from vemseg.cli.train import train

HELP = {"context_settings": {"help_option_names": ["-h", "--help"]}}
EXAMPLES = """
Try it:

    vemseg fetch phantom
    vemseg segment phantom.tif -k 6
    vemseg evaluate phantom_seg.tif --reference phantom_labels.tif
"""


class Workflow(TyperGroup):
    """The commands in the order of their use: fetch first, though it is a group of its own."""

    def list_commands(self, ctx: object) -> list[str]:
        """Return the names of the commands."""
        return sorted(self.commands, key="fetch".__ne__)


app = typer.Typer(
    cls=Workflow,
    help="Self-supervised segmentation of organelles in volume electron microscopy.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    **HELP,  # type: ignore[arg-type]
)
fetch = typer.Typer(help="Get volumes and weights; list what is at hand.", no_args_is_help=True, **HELP)  # type: ignore[arg-type]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vemseg {vemseg.__version__}")
        raise typer.Exit


def _diagnose(wanted: bool) -> None:
    if wanted:
        as_command(diagnose)()
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
    diagnose: Annotated[
        bool,
        typer.Option(
            "--diagnose",
            metavar="",
            callback=_diagnose,
            is_eager=True,
            help="Show versions, devices and memory, for a bug report.",
        ),
    ] = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
    progress: options.Progress = words.ProgressStyle.auto,
) -> None:
    """Take the options that stand before a command."""
    set_up(verbose=verbose, quiet=quiet, progress=progress)


fetch.command("phantom")(as_command(phantom))
fetch.command("betaseg")(as_command(betaseg))
fetch.command("openorganelle")(as_command(openorganelle))
fetch.command("weights")(as_command(weights))
fetch.command("list")(as_command(fetch_list))
app.add_typer(fetch, name="fetch")
for verb in (train, embed, cluster, segment, refine, objects, evaluate, render, report):
    app.command(no_args_is_help=True)(as_command(verb))


def main() -> None:
    """Start the program: the console script ``vemseg`` and ``python -m vemseg``."""
    settle()
    try:
        with exit_codes(verbose=False):  # also of what happens before a command begins, or after it
            try:
                code = app(prog_name="vemseg", standalone_mode=False)
            except MISUSE as error:
                code = misused(error)
            sys.stdout.flush()
    except typer.Exit as ended:
        code = ended.exit_code
    except typer.Abort:
        code = KEYBOARD
    except SystemExit as ended:  # Typer ends so where nobody reads its help any more
        code = CLOSED_PIPE if ended.code == 1 else ended.code
    sys.exit(code or 0)
