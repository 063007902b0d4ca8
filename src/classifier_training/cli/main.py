"""``classifier``: the commands. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from classifier_training import __version__
from classifier_training.cli import cloud_commands, data_commands, model_commands, run_commands

app = typer.Typer(
    name="classifier",
    help="Train image classifiers whose measured, saved and exported weights are the same.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# In the order of `classifier --help`.
app.command(
    "train",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)(run_commands.train_command)
app.command("evaluate")(model_commands.evaluate_command)
app.command("predict")(model_commands.predict_command)
app.command("export")(model_commands.export_command)
app.command("verify")(model_commands.verify_command)
app.command("compare")(model_commands.compare_command)
app.command("robustness")(model_commands.robustness_command)
app.command("report")(run_commands.report_command)
app.command("runs")(run_commands.runs_command)
app.command("doctor")(run_commands.doctor_command)
app.command("submit")(cloud_commands.submit_command)
app.command("reproduce")(run_commands.reproduce_command)
app.command("suspects")(data_commands.suspects_command)
app.command("check")(data_commands.check_command)
app.command("synth")(data_commands.synth_command)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Train image classifiers whose measured, saved and exported weights are the same."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    app(prog_name=Path(sys.argv[0]).name if sys.argv else "classifier")
