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
    run: ModelArgument,
    split: Annotated[
        str | None,
        typer.Option(help="train, val or test of a run; with --data only rows that name it."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled images of no run: a folder per class, .jsonl, .csv or .tsv."),
    ] = None,
    backend: Annotated[str | None, typer.Option(help="torch (default for a run) or onnx.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to.")] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also nearest neighbours and a linear probe.")
    ] = False,
    unknown: Annotated[
        str, typer.Option(help="Labels of --data that are no class: error or skip.")
    ] = "error",
    image_field: Annotated[
        str | None, typer.Option(help="Column or key of the path in --data.")
    ] = None,
    label_field: Annotated[
        str | None, typer.Option(help="Column or key of the label in --data.")
    ] = None,
    data_root: DataRoot = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    device: Annotated[str, typer.Option(help="A torch device: cpu, cuda, mps.")] = "cpu",
    debug: Debug = False,
) -> None:
    """Measure a run or an ONNX file on labelled images, with intervals."""
    from classifier_training.cli.evaluate import run_evaluate

    raise typer.Exit(
        run_evaluate(
            run,
            split=split,
            data=data,
            backend=backend,
            out=out,
            baselines=baselines,
            unknown=unknown,
            image_field=image_field,
            label_field=label_field,
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
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Calibrated probabilities; tell unsure answers.")
    ] = False,
    sets: Annotated[
        bool, typer.Option("--sets", help="Add the classes that may be (conformal sets).")
    ] = False,
    ood: Annotated[
        bool, typer.Option("--ood", help="Add the energy of the logits; tell foreign images.")
    ] = False,
    check_inputs: Annotated[
        bool, typer.Option("--check-inputs", help="Name images unlike the training images.")
    ] = False,
    on_bad_image: Annotated[
        str, typer.Option(help="error (exit code 3), or skip: name it and go on (exit code 0).")
    ] = "error",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of the session.", show_default="all cores allowed")
    ] = None,
    provider: Annotated[str, typer.Option(help="Of onnxruntime: cpu, cuda, ...")] = "cpu",
    debug: Debug = False,
) -> None:
    """Classify images with the exported model (without torch)."""
    from classifier_training.cli.predict import PredictOptions, run_predict
    from classifier_training.runtime.predictor import Extras

    extras = Extras(calibrated, sets, ood, check_inputs)
    options = PredictOptions(top_k, out, batch_size, extras, on_bad_image, threads, provider)
    raise typer.Exit(run_predict(model, images, options, debug=debug))


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
        Path | None,
        typer.Option(help="Where the run's images lie now; with cv2, of an ONNX file any images."),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(help="pil, or cv2: report how often OpenCV's preprocessing changes answers."),
    ] = "pil",
    debug: Debug = False,
) -> None:
    """Check that an export is whole and does what the run measured (without torch)."""
    from classifier_training.cli.verify import run_verify

    raise typer.Exit(run_verify(model, data=data, backend=backend, debug=debug))


@app.command("compare")
def compare_command(
    a: Annotated[
        Path, typer.Argument(help="A run, predictions.csv or ONNX file.", show_default=False)
    ],
    b: Annotated[Path | None, typer.Argument(help="Another one.", show_default=False)] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    metric: Annotated[
        str, typer.Option(help="What decides: f1_macro, acc_top1, acc_macro or loss.")
    ] = "f1_macro",
    data: Annotated[Path | None, typer.Option(help="Where the images of an ONNX file lie.")] = None,
    common: Annotated[
        bool, typer.Option("--common", help="Compare on the images that both answered.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder to write to.")] = None,
    gate: Annotated[
        Path | None, typer.Option(help="Fail (exit code 5) when A is worse than this baseline.")
    ] = None,
    margin: Annotated[float, typer.Option(help="What the gate lets A lose.")] = 0.01,
    write_baseline: Annotated[
        Path | None, typer.Option(help="Write A's results to a file to commit.")
    ] = None,
    images: Annotated[
        bool, typer.Option(help="Whether that file holds an answer for each image.")
    ] = True,
    debug: Debug = False,
) -> None:
    """Say whether B is better than A on the same images, worse, or whether it is a tie."""
    from classifier_training.cli.compare import run_compare

    raise typer.Exit(
        run_compare(
            a,
            b,
            split=split,
            metric=metric,
            data=data,
            common=common,
            out=out,
            baseline=gate,
            margin=margin,
            write_to=write_baseline,
            with_images=images,
            debug=debug,
        )
    )


@app.command("robustness")
def robustness_command(
    model: ModelArgument,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    data: Annotated[
        Path | None,
        typer.Option(help="Where a run's images lie now; for an ONNX file a folder per class."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="A corruption; may stand several times.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    debug: Debug = False,
) -> None:
    """Measure the exported model on noisy, blurred, dark... copies of your images."""
    from classifier_training.cli.robustness import run_robustness

    raise typer.Exit(
        run_robustness(
            model, split=split, data=data, only=only or [], out=out, seed=seed, debug=debug
        )
    )


@app.command("runs")
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
            debug=debug,
        )
    )


@app.command("suspects")
def suspects_command(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folder of a run, or of all runs of a cross-validation."),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder to write to.")] = None,
    data_root: DataRoot = None,
    top: Annotated[int, typer.Option(min=1, max=500, help="Pictures on the sheet.")] = 48,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    device: Annotated[str, typer.Option(help="A torch device: cpu, cuda, mps.")] = "cpu",
    debug: Debug = False,
) -> None:
    """List labels that are probably wrong; never changes the data."""
    from classifier_training.cli.suspects import run_suspects

    raise typer.Exit(
        run_suspects(
            runs,
            out=out,
            data_root=data_root,
            top=top,
            batch_size=batch_size,
            device=device,
            debug=debug,
        )
    )


@app.command("check")
def check_command(
    overrides: Annotated[
        list[str], typer.Argument(help="As for train: data.data_root=PATH ...", show_default=False)
    ],
    config_name: Annotated[str, typer.Option("--config-name", help="Root YAML.")] = "train",
    config_dir: Annotated[
        Path | None, typer.Option(help="A folder of YAML files of your own.", file_okay=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for check.json.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Count warnings as errors.")] = False,
    debug: Debug = False,
) -> None:
    """Find unreadable images, duplicates, leaks and faulty labels; exit 3 when there are errors."""
    from classifier_training.cli.check import run_check

    raise typer.Exit(
        run_check(
            overrides,
            root=config_name,
            config_dir=config_dir,
            out=out,
            strict=strict,
            debug=debug,
        )
    )


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
