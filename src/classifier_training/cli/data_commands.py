"""Commands about data: their options. What they do is imported when they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from classifier_training.cli.options import DataRoot, Debug


def check_command(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="As for train: data.data_root=PATH ...", show_default=False),
    ] = None,
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
            overrides or [],
            root=config_name,
            config_dir=config_dir,
            out=out,
            strict=strict,
            debug=debug,
        )
    )


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
