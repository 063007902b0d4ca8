"""All checks of a data set, in the order in which a user would fix."""

from __future__ import annotations

from collections.abc import Iterator

from classifier_training.config.schema import DataConfig
from classifier_training.data.checks.classes import class_counts
from classifier_training.data.checks.duplicates import duplicates
from classifier_training.data.checks.files import bad_images, wrong_names
from classifier_training.data.checks.findings import SEVERITIES, Finding, Limits
from classifier_training.data.checks.groups import cut_groups
from classifier_training.data.checks.labels import look_alikes
from classifier_training.data.checks.near_duplicates import near_duplicates
from classifier_training.data.checks.pictures import odd_pictures
from classifier_training.data.checks.shortcuts import shortcuts
from classifier_training.data.image_stats import ImageStats
from classifier_training.data.manifest import Manifest


def check_data(
    manifest: Manifest, facts: ImageStats | None, config: DataConfig
) -> tuple[Finding, ...]:
    """Run the checks.

    Args:
        manifest: All images, also those that cannot be decoded.
        facts: What decoding found; None leaves out the checks that need it.
        config: Limits and policies.

    Returns:
        Errors, then warnings, then notes.
    """
    found = list(_findings(manifest, facts, config))
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))


def _findings(
    manifest: Manifest, facts: ImageStats | None, config: DataConfig
) -> Iterator[Finding]:
    limits = Limits(
        near_duplicate_distance=config.near_duplicate_distance,
        min_image_side=config.min_image_side,
        max_aspect_ratio=config.max_aspect_ratio,
        min_class_images=config.min_class_images,
    )
    if facts is not None:
        yield from bad_images(facts, is_skipped=config.on_bad_image == "skip")
        yield from wrong_names(manifest, facts)
    yield from duplicates(manifest, facts)
    yield from cut_groups(manifest)
    yield from look_alikes(manifest, are_given=config.classes is not None)
    yield from class_counts(manifest, limits)
    if facts is not None:
        yield from near_duplicates(manifest, facts, limits)
        yield from odd_pictures(facts, limits)
        yield from shortcuts(manifest, facts)
