"""``classifier``: the commands. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from classifier_training import __version__

app = typer.Typer(
    name="classifier",
    help="Train image classifiers whose measured, saved and exported weights are the same.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RunArgument = Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)]
ModelArgument = Annotated[
    Path, typer.Argument(help="Folder of a run, or an ONNX file.", show_default=False)
]
DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Where the data lies now, if it moved.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


@app.command(
    "train",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def train_command(context: typer.Context) -> None:
    """Train: classifier train data.data_root=PATH [--config-name NAME] [KEY=VALUE ...]."""
    from classifier_training.cli.train import train

    raise typer.Exit(train(list(context.args)))


@app.command("evaluate")
def evaluate_command(
    run: RunArgument,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    out: Annotated[Path | None, typer.Option(help="Folder to write to.")] = None,
    data_root: DataRoot = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    device: Annotated[str, typer.Option(help="A torch device: cpu, cuda, mps.")] = "cpu",
    debug: Debug = False,
) -> None:
    """Evaluate a run's best checkpoint on a split."""
    from classifier_training.cli.evaluate import run_evaluate

    raise typer.Exit(
        run_evaluate(
            run,
            split=split,
            out=out,
            data_root=data_root,
            batch_size=batch_size,
            device=device,
            debug=debug,
        )
    )


@app.command("predict")
def predict_command(
    model: ModelArgument,
    images: Annotated[list[str], typer.Argument(help="Files, folders or globs.")],
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Classes shown an image.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Write all to a .csv or .jsonl file.")] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    debug: Debug = False,
) -> None:
    """Classify images with the exported model (without torch)."""
    from classifier_training.cli.predict import run_predict

    raise typer.Exit(
        run_predict(model, images, top_k=top_k, out=out, batch_size=batch_size, debug=debug)
    )


@app.command("export")
def export_command(
    run: RunArgument,
    opset: Annotated[int, typer.Option(min=18, max=23)] = 18,
    precision: Annotated[str, typer.Option(help="fp32.")] = "fp32",
    data_root: DataRoot = None,
    debug: Debug = False,
) -> None:
    """Export a run's best checkpoint to ONNX, verified on its validation images."""
    from classifier_training.cli.export import run_export

    raise typer.Exit(
        run_export(run, opset=opset, precision=precision, data_root=data_root, debug=debug)
    )


@app.command("verify")
def verify_command(
    model: ModelArgument,
    data: Annotated[
        Path | None, typer.Option(help="Where the run's images lie now, if they moved.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Check that an export is whole and does what the run measured (without torch)."""
    from classifier_training.cli.verify import run_verify

    raise typer.Exit(run_verify(model, data=data, debug=debug))


@app.command("synth")
def synth_command(
    out: Annotated[Path, typer.Argument(help="Folder to write to.", show_default=False)],
    classes: Annotated[int, typer.Option(min=2, help="Number of classes.")] = 12,
    per_class: Annotated[int, typer.Option(min=1, help="Training images of a class.")] = 200,
    imbalance: Annotated[
        float, typer.Option(min=1.0, help="Most frequent class over rarest.")
    ] = 1.0,
    image_size: Annotated[int, typer.Option(min=24, help="Pixels of the shorter side.")] = 80,
    difficulty: Annotated[float, typer.Option(min=0.0, max=1.0)] = 0.5,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    debug: Debug = False,
) -> None:
    """Render synthetic jersey numbers in the JSONL layout."""
    from classifier_training.cli.synth import run_synth

    raise typer.Exit(
        run_synth(
            out,
            classes=classes,
            per_class=per_class,
            imbalance=imbalance,
            image_size=image_size,
            difficulty=difficulty,
            seed=seed,
            debug=debug,
        )
    )


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
