"""Commands about runs: their options. What they do is imported when they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from classifier_training.cli.options import DataRoot, Debug, RunArgument


def train_command(context: typer.Context) -> None:
    """Train: classifier train data.data_root=PATH [--config-name NAME] [KEY=VALUE ...]."""
    from classifier_training.cli.train import train

    raise typer.Exit(train(list(context.args)))


def report_command(
    run: RunArgument,
    out: Annotated[Path | None, typer.Option(help="The HTML file; RUN/report.html.")] = None,
    previous: Annotated[
        Path | None, typer.Option(help="A run to compare with, on the images of both.")
    ] = None,
    data_root: DataRoot = None,
    debug: Debug = False,
) -> None:
    """Write the run as one HTML file: how good it is, where it fails, what to do next."""
    from classifier_training.cli.report import run_report

    raise typer.Exit(run_report(run, out=out, previous=previous, data_root=data_root, debug=debug))


def runs_command(
    folder: Annotated[Path, typer.Argument(help="Folder with runs in it.", show_default=False)],
    aggregate: Annotated[
        bool, typer.Option("--aggregate", help="Mean and interval over seeds or folds.")
    ] = False,
    by: Annotated[
        str | None, typer.Option(help="Group by these keys alone, as in model.name,loss.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write all to a JSON file.")
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Also write the table to a CSV file.")
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", help="Also write a page that sorts, with links.")
    ] = None,
    debug: Debug = False,
) -> None:
    """List the runs below a folder, and average those that differ in their seed."""
    from classifier_training.cli.runs import run_runs

    raise typer.Exit(
        run_runs(
            folder,
            aggregate=aggregate,
            by=by,
            json_file=json_file,
            csv_file=csv_file,
            html_file=html_file,
            debug=debug,
        )
    )
