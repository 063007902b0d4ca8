"""``classifier doctor``: whether this machine can train, and what slows it down."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from classifier_training.cli.console import guarded, set_up_logging
from classifier_training.errors import EXIT_CONFIG, EXIT_OK, DataError
from classifier_training.system.files import write_json
from classifier_training.system.machine import (
    Diagnosis,
    Verdict,
    diagnose_folder,
    diagnose_machine,
    overall,
)

if TYPE_CHECKING:
    from classifier_training.config.schema import Config
    from classifier_training.data.index import DataIndex

_STYLES: dict[Verdict, str] = {"ok": "green", "note": "cyan", "slow": "yellow", "fail": "bold red"}
_SENTENCES: dict[Verdict, str] = {
    "ok": "this machine can train",
    "slow": "this machine can train, slower than it could",
    "fail": "this machine cannot train this",
}
_NEEDED = ("hydra", "lightning", "pydantic", "torch", "torchvision")
_NO_DATA = "no data.data_root given"


def run_doctor(
    overrides: list[str],
    *,
    root: str,
    config_dir: Path | None,
    steps: bool,
    json_file: Path | None,
    debug: bool,
) -> int:
    """Look at everything, show it, and return the exit code: 0, or 2 when nothing can be trained.

    Args:
        overrides: As for ``train``; without ``data.data_root`` the data is left out.
        root: Root YAML.
        config_dir: A folder of the user's own YAML files.
        steps: Whether a few training steps are timed.
        json_file: Also written, if given.
        debug: Show tracebacks.
    """
    set_up_logging(debug=debug)

    def task() -> int:
        found = diagnose_machine()
        if all(find_spec(module) is not None for module in _NEEDED):
            folder = None if config_dir is None else str(config_dir)
            found += _diagnose(overrides, root.removesuffix(".yaml"), folder, steps=steps)
        verdict = overall(found)
        if json_file is not None:
            rows = [vars(diagnosis) for diagnosis in found]
            write_json(json_file, {"schema_version": 1, "verdict": verdict, "found": rows})
        _show(found, verdict)
        return EXIT_CONFIG if verdict == "fail" else EXIT_OK

    return guarded(task, debug=debug)


def _diagnose(
    overrides: list[str], root: str, config_dir: str | None, *, steps: bool
) -> list[Diagnosis]:
    """Compose the configuration as ``train`` does, and look at what it asks for."""
    from classifier_training.config.compose import (
        allowed_modules,
        compose_config,
        make_strict,
        run_folders,
    )
    from classifier_training.config.validate import validate

    has_data = any(text.lstrip("+").startswith("data.data_root=") for text in overrides)
    given = overrides if has_data else [*overrides, "data.data_root=."]
    strict = make_strict(given, config_dir=config_dir)
    composed = compose_config(strict, root=root, config_dir=config_dir)
    config = validate(composed, allow_modules=allowed_modules(given))
    run_folder = run_folders(strict, root=root, config_dir=config_dir)[0]
    found = diagnose_folder("run folder", Path.cwd() / run_folder)
    for name in ("cache_dir", "staging_dir"):
        place = getattr(config.data, name)
        if place is not None:
            found += diagnose_folder(f"data.{name}", Path(place).expanduser())
    diagnosis, index = _data(config) if has_data else (Diagnosis("data", "note", _NO_DATA), None)
    from classifier_training.training.diagnosis import diagnose_training

    sys.stderr.write("looking at devices and weights" + (", timing steps" if steps else "") + "\n")
    return [*found, diagnosis, *diagnose_training(config, index, times_steps=steps)]


def _data(config: Config) -> tuple[Diagnosis, DataIndex | None]:
    from classifier_training.data.index import index_data

    try:
        index = index_data(config.data)
    except DataError as error:
        return Diagnosis("data", "fail", error.what, error.fix), None
    splits = {split: len(index.manifest.rows(split)) for split in ("train", "val", "test")}
    counts = ", ".join(f"{split} {count:,}" for split, count in splits.items() if count)
    classes = len(index.manifest.class_map)
    hint = "classifier check looks into the images"
    return Diagnosis("data", "ok", f"{classes} classes; {counts} ({hint})"), index


def _show(found: list[Diagnosis], verdict: Verdict) -> None:
    if sys.stdout.isatty():
        _show_table(found)
    else:
        for diagnosis in found:
            print(f"{diagnosis.verdict:<5} {diagnosis.name}: {diagnosis.found}")
            if diagnosis.fix:
                print(f"      fix: {diagnosis.fix}")
    console = Console(soft_wrap=True, highlight=False)
    console.print(Text(f"{_SENTENCES[verdict]}", style=_STYLES[verdict]))


def _show_table(found: list[Diagnosis]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for diagnosis in found:
        cell = Text(diagnosis.found)
        if diagnosis.fix:
            cell.append(f"\n{diagnosis.fix}", style="dim")
        verdict = Text(diagnosis.verdict, style=_STYLES[diagnosis.verdict])
        table.add_row(verdict, Text(diagnosis.name, style="bold"), cell)
    Console().print(table)
