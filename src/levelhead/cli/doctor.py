"""`levelhead doctor`: what to know about a network, a recipe and data, before anything trains."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from levelhead.cli.console import out, print_json
from levelhead.cli.options import FITTING, AsJson, Backbones, DataDir, split_commas, task_options
from levelhead.doctor import Diagnosis, examine
from levelhead.studies.grid import Source, read_backbone
from levelhead.text import parse, parse_part

SIGNS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "problem": ("PROBLEM", "bold red")}


def doctor(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="my_module:function, a backbone, or a recipe's line of text.", show_default=False
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            "-t",
            help="Examine on this task's inputs, and its data too. [dim]default: random colour images of 32 x 32[/dim]",
            rich_help_panel=FITTING,
            show_default=False,
        ),
    ] = None,
    backbone: Backbones = None,
    head: Annotated[
        str | None,
        typer.Option(
            "--head",
            help="Name of the last linear layer of a module of yours. [dim]default: found by an example[/dim]",
            rich_help_panel=FITTING,
            show_default=False,
        ),
    ] = None,
    surgery: Annotated[
        list[str] | None,
        typer.Option(
            "--surgery",
            metavar="NAMES",
            help="Surgeries to try on the network, one on top of the other: spatial_smoothing,mc_dropout(p=0.1).",
            rich_help_panel=FITTING,
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings and problems only.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Show the layers that an example meets, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Examine a network, what each surgery of a recipe does to it, and a task's data. Trains nothing.

    Ends with code 1 where there is a problem, so that it can guard a change of yours.

    \b
    [bold]Examples[/bold]
      levelhead doctor my_package.models:build --task cifar10 --data-dir data
      levelhead doctor my_package.models:build --surgery mc_dropout,batch_ensemble
      levelhead doctor "resnet18 + spatial_smoothing + mc_dropout"
      levelhead doctor plain --backbone lenet --task fashion-mini --json
    """
    data = None if task is None else Source(task, task_options(data_dir)).load()
    backbones = split_commas(backbone)
    tried = [parse_part(name, ("surgeries",)) for name in split_commas(surgery)]
    fit = parse(target, backbone=read_backbone(backbones[0])) if backbones else target
    found = examine(fit, tried, data, head=head)
    if as_json:
        print_json({**asdict(found), "healthy": found.healthy})
    else:
        show(found, target, quiet=quiet, layers=layers)
    raise typer.Exit(0 if found.healthy else 1)


def show(found: Diagnosis, target: str, *, quiet: bool, layers: bool) -> None:
    """The findings, by what they are about."""
    console = out()
    shown = [finding for finding in found.findings if not (quiet and finding.level == "ok")]
    for subject in dict.fromkeys(finding.subject for finding in shown):
        table = Table(
            title=subject, title_justify="left", title_style="bold", box=None, padding=(0, 1), show_header=False
        )
        for finding in (finding for finding in shown if finding.subject == subject):
            sign, style = SIGNS[finding.level]
            text = Text(finding.text)
            if finding.next_step:
                text.append(f"\n-> {finding.next_step}", style="dim")
            table.add_row(Text(sign, style=style), Text(finding.check), text)
        console.print(table)
    if layers:
        console.print(Text("layers", style="bold"))
        for line in found.layers:
            console.print(Text(f" {line}"))
    verdict = "healthy" if found.healthy else "not healthy"
    counts = f"{len(found.problems)} problems, {len(found.warnings)} warnings, {len(found.findings)} findings"
    console.print(Text(f"\n{target}: {verdict} ({counts})", style="bold"))
