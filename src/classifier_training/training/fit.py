"""One run, from top to bottom: data, network, training, best, evaluation, export, report."""

from __future__ import annotations

from classifier_training.config.schema import Config
from classifier_training.data.checks.preflight import load_checked
from classifier_training.run.folder import RunFolder
from classifier_training.run.reader import Run
from classifier_training.run.record import identify, write_data
from classifier_training.run.session import RunSession
from classifier_training.trackers.feed import tracking
from classifier_training.training.build import build_parts
from classifier_training.training.distributed import Launch
from classifier_training.training.finish import complete_finished, finish, quantize
from classifier_training.training.hardware import prepare
from classifier_training.training.loop import train_network


def fit(config: Config, folder: RunFolder, command: str) -> Run | None:
    """Carry out a run, or resume it.

    Args:
        config: The validated configuration.
        folder: Where everything is written; the only place that is.
        command: What was typed, for the record.

    Returns:
        The finished run; None in the further processes of a distributed run.

    Raises:
        ClassifierTrainingError: What the user can fix; see ``errors``.
    """
    with (
        Launch.detect(config.trainer) as launch,
        RunSession(folder, launch, config.output_uri) as session,
    ):
        hardware = prepare(config)
        data = load_checked(config.data, stored=folder.image_stats)
        manifest = data.index.manifest
        session.claim(identify(config, manifest, command))
        if session.is_finished:
            return complete_finished(session)

        # Everything that can be refused is built before anything is written.
        parts = build_parts(
            config, folder, manifest, hardware, run_id=session.run_id, record=session.record
        )
        session.start(parts.facts)
        if not session.is_main:
            train_network(parts, is_main=False)
            return None
        with tracking(parts.feed):
            write_data(folder, data, parts.metadata.spec)
            with session.stage("fit"):
                best = train_network(parts)
                folder.update_record({"best": best})
            finish(parts, manifest, best)
        quantize(config.export, folder)
        return Run(folder.path)
