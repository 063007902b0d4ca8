"""The checks as the first step of a run: refuse, or leave out, before anything is built."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from loguru import logger

from classifier_training.config.schema import DataConfig
from classifier_training.data.checks.files import bad_image_code
from classifier_training.data.checks.findings import Finding, Item, describe_item, to_json
from classifier_training.data.checks.run import check_data
from classifier_training.data.image_stats import ImageStats, measure_images
from classifier_training.data.index import DataIndex, index_data, require_loadable
from classifier_training.data.manifest import Manifest
from classifier_training.data.staging import staged
from classifier_training.errors import DataError
from classifier_training.system.files import write_json
from classifier_training.system.progress import progress
from classifier_training.system.resources import available_cores

_SHOWN_ERRORS, _SHOWN_WARNINGS = 5, 3


@dataclass(frozen=True)
class CheckedData:
    """Data that may be trained on, and what was found on the way.

    Attributes:
        index: Without the images that were left out.
        facts: Facts of the images of ``index``; None when they were not decoded.
        findings: About all images, also those left out; None when nothing was checked.
        all_images: Before any were left out.
        all_facts: Facts of them.
    """

    index: DataIndex
    facts: ImageStats | None
    findings: tuple[Finding, ...] | None
    all_images: Manifest
    all_facts: ImageStats | None

    def write(self, *, facts: Path, report: Path) -> None:
        """Write the facts of all images (a run that goes on reads them) and the findings."""
        if self.all_facts is not None:
            self.all_facts.write(facts, self.all_images)
        if self.findings is not None:
            is_decoded = self.facts is not None
            content = report_json(self.findings, self.all_images, is_decoded=is_decoded)
            write_json(report, content)


def load_checked(config: DataConfig, *, stored: Path) -> CheckedData:
    """Find all images, staged where that is configured, and check them.

    Args:
        config: Where they are and what is checked.
        stored: Where an earlier part of the run wrote the facts of the images.

    Raises:
        DataError: See :func:`~classifier_training.data.index.index_data` and :func:`check_index`.
    """
    return check_index(index_data(staged(config)), config, stored=stored)


def check_index(index: DataIndex, config: DataConfig, *, stored: Path) -> CheckedData:
    """Check the data, leave out what may be left out, and refuse errors.

    Args:
        index: All images.
        config: What is checked (``data.check``), by which limits and policies.
        stored: Where an earlier part of the run wrote the facts; they are measured when it did
            not, or when the images changed.

    Raises:
        DataError: A check found an error, more images than ``data.max_bad_share`` cannot be
            decoded, or too few are left.
    """
    if config.check == "none":
        return CheckedData(index, None, None, index.manifest, None)
    facts = find_facts(index.manifest, config, stored) if config.check == "full" else None
    findings = check_data(index.manifest, facts, config)
    _tell(findings, index.manifest)
    _refuse(findings, index.manifest)
    if facts is None:
        return CheckedData(index, None, findings, index.manifest, None)
    _require_few_bad(index.manifest, facts, config)
    if facts.decoded.all():
        return CheckedData(index, facts, findings, index.manifest, facts)
    kept = np.flatnonzero(facts.decoded)
    left = _leave_out(index, facts, config)
    return CheckedData(left, facts.select(kept), findings, index.manifest, facts)


def find_facts(manifest: Manifest, config: DataConfig, stored: Path | None) -> ImageStats:
    """Read the facts where a run stored them, or decode all images."""
    if stored is not None and stored.exists():
        try:
            return ImageStats.read(stored, manifest)
        except DataError as error:
            logger.info("check: decoding the images again: {}", error.what)
    workers = available_cores() if config.num_workers == "auto" else config.num_workers
    with progress("check images") as on_images:
        return measure_images(manifest, workers=workers, on_images=on_images)


def report_json(
    findings: tuple[Finding, ...], manifest: Manifest | None, *, is_decoded: bool
) -> dict[str, object]:
    """Return the content of ``check.json``."""
    counts = Counter(finding.severity for finding in findings)
    return {
        "images": len(manifest) if manifest is not None else None,
        "images_decoded": is_decoded,
        "fingerprint": manifest.fingerprint() if manifest is not None else None,
        "errors": counts["error"],
        "warnings": counts["warning"],
        "notes": counts["note"],
        "findings": to_json(findings, manifest),
    }


def _tell(findings: tuple[Finding, ...], manifest: Manifest) -> None:
    for finding in findings:
        if finding.severity == "warning":
            logger.warning("check: {}: {}", finding.code, finding.message)
            for item in finding.items[:_SHOWN_WARNINGS]:
                logger.warning("check:   {}", describe_item(item, manifest))
        elif finding.severity == "note":
            logger.info("check: {}: {}", finding.code, finding.message)


def _refuse(findings: tuple[Finding, ...], manifest: Manifest) -> None:
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    lines = []
    for finding in errors:
        lines.append(f"{finding.code}: {finding.message}")
        lines += [f"  {describe_item(item, manifest)}" for item in finding.items[:_SHOWN_ERRORS]]
        if len(finding.items) > _SHOWN_ERRORS:
            lines.append(f"  … and {len(finding.items) - _SHOWN_ERRORS:,} more")
    shown = "\n    ".join(lines)
    raise DataError(
        f"the data in {manifest.root} has errors:\n    {shown}",
        expected="; ".join(dict.fromkeys(finding.expected for finding in errors)),
        fix=f"{'; '.join(dict.fromkeys(finding.fix for finding in errors))}. `classifier check` "
        "with the same data.* overrides and --out DIR lists all of them",
    )


def _require_few_bad(manifest: Manifest, facts: ImageStats, config: DataConfig) -> None:
    bad = np.flatnonzero(~facts.decoded)
    share = len(bad) / len(facts)
    if share > config.max_bad_share:
        shown = "\n    ".join(
            describe_item(Item((int(row),), facts.errors[int(row)]), manifest)
            for row in bad[:_SHOWN_ERRORS]
        )
        raise DataError(
            f"{len(bad):,} of {len(facts):,} images ({share:.1%}) cannot be decoded:\n    {shown}",
            expected=f"at most data.max_bad_share={config.max_bad_share:g} of them",
            fix="fix the files (`classifier check` lists all), or raise data.max_bad_share",
        )


def _leave_out(index: DataIndex, facts: ImageStats, config: DataConfig) -> DataIndex:
    bad = np.flatnonzero(~facts.decoded)
    counted = Counter(bad_image_code(facts, int(row)).replace("-", " ") for row in bad)
    left = replace(
        index,
        manifest=index.manifest.select(np.flatnonzero(facts.decoded)),
        skipped={**index.skipped, **counted},
    )
    require_loadable(left.manifest, config)
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counted.items()))
    logger.warning("data: left out: {} (data.on_bad_image=skip)", reasons)
    return left
