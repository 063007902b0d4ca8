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


def doctor_command(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="As for train: data.data_root=PATH ...", show_default=False),
    ] = None,
    config_name: Annotated[str, typer.Option("--config-name", help="Root YAML.")] = "train",
    config_dir: Annotated[
        Path | None, typer.Option(help="A folder of YAML files of your own.", file_okay=False)
    ] = None,
    steps: Annotated[
        bool, typer.Option(help="Take a few steps on random images, to estimate.")
    ] = True,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write all to a JSON file.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Say whether this machine can train, and what slows it down; exit 2 when it cannot."""
    from classifier_training.cli.doctor import run_doctor

    raise typer.Exit(
        run_doctor(
            overrides or [],
            root=config_name,
            config_dir=config_dir,
            steps=steps,
            json_file=json_file,
            debug=debug,
        )
    )


def reproduce_command(
    run: RunArgument,
    out: Annotated[
        Path | None, typer.Option(help="New run folder; by default RUN_reproduced.")
    ] = None,
    data_root: DataRoot = None,
    allow_module: Annotated[
        list[str] | None,
        typer.Option(help="A module whose classes the stored configuration may name again."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="By how much metrics may differ and still match.")
    ] = 1e-3,
    debug: Debug = False,
) -> None:
    """Train a run again from what it recorded; exit 5 when its numbers do not come again."""
    from classifier_training.cli.reproduce import run_reproduce

    raise typer.Exit(
        run_reproduce(
            run,
            out=out,
            data_root=data_root,
            allow_modules=allow_module or [],
            tolerance=tolerance,
            debug=debug,
        )
    )
