"""Commands about clouds: their options. What they do is imported when they are called."""

from __future__ import annotations

from typing import Annotated

import typer

from classifier_training.cli.options import Debug


def submit_command(
    project: Annotated[str, typer.Option(help="Google Cloud project.", show_default=False)],
    image: Annotated[str, typer.Option(help="URI of the training image.", show_default=False)],
    run: Annotated[str, typer.Option(help="Run folder, gs://BUCKET/PATH.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="As for train: data.data_root=gs://BUCKET/PATH trainer=t4 ...", show_default=False
        ),
    ] = None,
    config_name: Annotated[str, typer.Option("--config-name", help="Root YAML.")] = "train",
    region: Annotated[str, typer.Option(help="Where the job runs.")] = "us-central1",
    service_account: Annotated[
        str | None, typer.Option(help="E-mail of the account that the job runs as.")
    ] = None,
    machine: Annotated[
        str | None, typer.Option(help="t4, l4, a100 or cpu; by default what trainer= says.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs; by default one.")] = None,
    spot: Annotated[
        bool, typer.Option("--spot/--on-demand", help="Spare machines, which may be taken away.")
    ] = True,
    secret: Annotated[
        list[str] | None,
        typer.Option(help="WANDB_API_KEY=projects/P/secrets/NAME; read when the job starts."),
    ] = None,
    max_hours: Annotated[float, typer.Option(min=0.1, help="The job is stopped then.")] = 12.0,
    max_usd: Annotated[
        float | None, typer.Option(min=0.01, help="The job is stopped when it may have cost that.")
    ] = None,
    usd_per_hour: Annotated[
        float | None, typer.Option(min=0.001, help="Price to count; by default a rough one.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Training images, for the estimate.")
    ] = None,
    images_per_s: Annotated[
        float | None, typer.Option(min=0.001, help="Measured on such a machine, for the estimate.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the job and what it may cost; ask nobody.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Watch the job to its end.")] = False,
    every_s: Annotated[
        float, typer.Option(min=0.01, help="Seconds between looks, with --wait.")
    ] = 30.0,
    endpoint: Annotated[
        str | None, typer.Option(help="Another address of the service, https://HOST.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Train on Vertex AI: the same configuration, on a spot machine, within a budget."""
    from classifier_training.cli.submit import SubmitOptions, run_submit

    raise typer.Exit(
        run_submit(
            overrides or [],
            root=config_name,
            options=SubmitOptions(
                project=project,
                region=region,
                image=image,
                run=run,
                service_account=service_account,
                machine=machine,
                gpus=gpus,
                secrets=secret or [],
                is_spot=spot,
                max_hours=max_hours,
                max_usd=max_usd,
                usd_per_hour=usd_per_hour,
                images=images,
                images_per_s=images_per_s,
                dry_run=dry_run,
                wait=wait,
                every_s=every_s,
                endpoint=endpoint,
            ),
            debug=debug,
        )
    )
