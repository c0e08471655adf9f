"""The verbs together. Each stands in its own file, and turns its arguments into calls of the library."""

from typing import Annotated

import typer

from levelhead import __version__
from levelhead.cli.cite import cite
from levelhead.cli.compare import compare
from levelhead.cli.diagnose import diagnose_runs
from levelhead.cli.doctor import doctor
from levelhead.cli.evaluate import evaluate
from levelhead.cli.fit import fit
from levelhead.cli.list import list_parts
from levelhead.cli.predict import predict
from levelhead.cli.report import report
from levelhead.cli.select import select_runs

app = typer.Typer(
    name="levelhead",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> bool:
    if wanted:
        print(__version__)
        raise typer.Exit
    return wanted


@app.callback()
def levelhead(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the full traceback of an error (anywhere in the line).")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Robust networks with calibrated uncertainty: compare, combine and use the published methods.

    [bold]Start here:[/bold]  levelhead compare --demo

    [bold]A recipe[/bold] is a line of text: parts joined by +, in the order they act.

    \b
        mc_dropout(p=0.1) + vat + temperature + deep_ensemble(size=4)

    `levelhead list` shows all parts, `levelhead VERB --help` explains a verb.
    """


main_group = "What you will want first"
app.command("compare", rich_help_panel=main_group)(compare)
app.command("fit", rich_help_panel=main_group)(fit)
app.command("predict", rich_help_panel=main_group)(predict)
app.command("evaluate", rich_help_panel="On what is there")(evaluate)
app.command("select", rich_help_panel="On what is there")(select_runs)
app.command("report", rich_help_panel="On what is there")(report)
app.command("diagnose", rich_help_panel="On what is there")(diagnose_runs)
app.command("doctor", rich_help_panel="To look things up")(doctor)
app.command("list", rich_help_panel="To look things up")(list_parts)
app.command("cite", rich_help_panel="To look things up")(cite)
