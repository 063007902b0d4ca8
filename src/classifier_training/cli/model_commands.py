"""Commands about a trained model: their options. What they do is imported when they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from classifier_training.cli.options import DataRoot, Debug, ModelArgument, RunArgument


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
    from classifier_training.inference.predictor import Extras

    extras = Extras(calibrated, sets, ood, check_inputs)
    options = PredictOptions(top_k, out, batch_size, extras, on_bad_image, threads, provider)
    raise typer.Exit(run_predict(model, images, options, debug=debug))


def export_command(
    run: RunArgument,
    opset: Annotated[int, typer.Option(min=18, max=23)] = 18,
    precision: Annotated[
        str, typer.Option(help="fp32; or int8: also model.int8.onnx, if it is as good and faster.")
    ] = "fp32",
    input_type: Annotated[
        str, typer.Option("--input", help="float32; or uint8: also model.uint8.onnx, for pixels.")
    ] = "float32",
    max_loss: Annotated[
        float,
        typer.Option(min=0, max=1, help="What int8 may lose on val of top-1 and of macro F1."),
    ] = 0.01,
    data_root: DataRoot = None,
    debug: Debug = False,
) -> None:
    """Export a run's best checkpoint to ONNX, verified on its validation images."""
    from classifier_training.cli.export import ExportOptions, run_export

    options = ExportOptions(opset, precision, input_type, max_loss, data_root)
    raise typer.Exit(run_export(run, options, debug=debug))


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
