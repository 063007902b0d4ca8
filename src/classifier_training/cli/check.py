"""``classifier check``: everything that is wrong with the data, in one table."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from classifier_training.cli.console import guarded, need_extra, set_up_logging
from classifier_training.errors import EXIT_DATA, EXIT_OK, ConfigError, DataError
from classifier_training.system.files import write_json

if TYPE_CHECKING:
    from classifier_training.config.schema import DataConfig
    from classifier_training.data.checks.findings import Finding
    from classifier_training.data.manifest import Manifest

_SHOWN = 5
_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def run_check(
    overrides: list[str],
    *,
    root: str,
    config_dir: Path | None,
    out: Path | None,
    strict: bool,
    debug: bool,
) -> int:
    """Check the data that the overrides of a training command point at; return the exit code."""
    set_up_logging(debug=debug)

    def task() -> int:
        for module in ("hydra", "pydantic"):
            if find_spec(module) is None:
                raise need_extra(module, "train")
        if out is not None and out.exists() and not out.is_dir():
            raise ConfigError(
                f"--out {out} is not a folder",
                expected="a folder, which is made when it does not exist",
                fix="give another one",
            )
        config = _data_config(overrides, root.removesuffix(".yaml"), config_dir)
        findings, manifest, is_decoded = _check(config)
        if out is not None:
            from classifier_training.data.checks.preflight import report_json

            content = report_json(findings, manifest, is_decoded=is_decoded)
            write_json(out / "check.json", content)
        return _show(findings, manifest, out, strict=strict)

    return guarded(task, debug=debug)


def _data_config(overrides: list[str], root: str, config_dir: Path | None) -> DataConfig:
    """Compose and validate the whole configuration, as ``train`` does; return its ``data``."""
    from classifier_training.config.compose import allowed_modules, compose_config, make_strict
    from classifier_training.config.validate import validate

    folder = None if config_dir is None else str(config_dir)
    composed = compose_config(
        make_strict(overrides, config_dir=folder), root=root, config_dir=folder
    )
    return validate(composed, allow_modules=allowed_modules(overrides)).data


def _check(config: DataConfig) -> tuple[tuple[Finding, ...], Manifest | None, bool]:
    """Check what can be checked; rows that cannot be used are findings among the others."""
    from classifier_training.data.checks.findings import Finding, Item
    from classifier_training.data.checks.preflight import find_facts
    from classifier_training.data.checks.run import check_data
    from classifier_training.data.index import index_data

    started = time.monotonic()
    faults: list[str] = []
    findings: tuple[Finding, ...] = ()
    manifest = None
    is_decoded = config.check != "labels"
    try:
        manifest = index_data(config, tolerated=faults).manifest
    except DataError as error:
        is_decoded = False
        item = Item((), error.what)
        unusable = "the data cannot be used as it is"
        findings = (Finding("data", "error", unusable, error.expected, error.fix, (item,)),)
    else:
        facts = find_facts(manifest, config, None) if is_decoded else None
        findings = check_data(manifest, facts, config)
        took = time.monotonic() - started
        done = "decoded and checked" if is_decoded else "checked without decoding them"
        sys.stderr.write(f"{len(manifest):,} images {done} in {took:.1f} s\n")
    if faults:
        rows = Finding(
            "faulty-row",
            "error",
            f"{len(faults):,} rows cannot be used; the other checks go without them",
            "each row to name an existing image inside the data root, and a known label",
            "correct or remove these rows",
            tuple(Item((), fault) for fault in faults),
        )
        findings = (rows, *findings)
    return findings, manifest, is_decoded


def _show(
    findings: Iterable[Finding], manifest: Manifest | None, out: Path | None, *, strict: bool
) -> int:
    from classifier_training.data.checks.findings import SEVERITIES, describe_item

    # Lines are not wrapped: a path that is cut in two cannot be copied.
    console = Console(soft_wrap=True, highlight=False)
    counts = dict.fromkeys(SEVERITIES, 0)
    for finding in findings:
        counts[finding.severity] += 1
        head = Text(f"{finding.severity:<8} ", style=_STYLES[finding.severity])
        head.append(f"{finding.code}: ", style="bold")
        head.append(finding.message, style="default")
        console.print(head)
        for item in finding.items[:_SHOWN]:
            console.print(Text(f"           {describe_item(item, manifest)}"))
        if (more := len(finding.items) - _SHOWN) > 0:
            console.print(Text(f"           … and {more:,} more"))
        console.print(Text(f"           expected: {finding.expected}", style="dim"))
        console.print(Text(f"           fix:      {finding.fix}", style="dim"))
    console.print(Text(", ".join(f"{count} {name}s" for name, count in counts.items())))
    if out is not None:
        console.print(Text(f"all of it: {out / 'check.json'}"))
    elif any(len(finding.items) > _SHOWN for finding in findings):
        console.print(Text("--out DIR writes all of it to DIR/check.json"))
    is_refused = counts["error"] or (strict and counts["warning"])
    if strict and counts["warning"]:
        console.print(Text("--strict: warnings count as errors"))
    return EXIT_DATA if is_refused else EXIT_OK
