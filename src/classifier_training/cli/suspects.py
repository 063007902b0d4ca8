"""``classifier suspects``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from loguru import logger

from classifier_training.cli.console import guarded, need_extra, set_up_logging
from classifier_training.errors import EXIT_OK
from classifier_training.system.progress import progress

if TYPE_CHECKING:
    from classifier_training.evaluation.label_errors import LabelErrors

_SHOWN = 10
_WIDEST = 44


def run_suspects(
    runs: list[Path],
    *,
    out: Path | None,
    data_root: Path | None,
    top: int,
    batch_size: int,
    device: str,
    debug: bool,
) -> int:
    """Look for label errors in the data of runs and return the exit code."""
    set_up_logging(debug=debug)

    def task() -> int:
        if find_spec("torch") is None:
            raise need_extra("torch", "train")
        from classifier_training.run.reader import Run

        for run in runs:
            Run(run)  # refuses before torch is imported
        from classifier_training.evaluation.label_errors import find_label_errors

        with progress("suspects: training images") as on_images:
            errors = find_label_errors(
                runs,
                out=out,
                data_root=data_root,
                device=device,
                batch_size=batch_size,
                top=top,
                on_images=on_images,
            )
        show(errors)
        return EXIT_OK

    return guarded(task, debug=debug)


def show(errors: LabelErrors) -> None:
    """Print the first suspects, the noise of each class, and what to do next."""
    from classifier_training.evaluation.label_errors import NOISE, SHEET, TABLE
    from classifier_training.evaluation.label_evidence import KINDS

    counts = [(name, int((errors.kinds == kind).sum())) for kind, name in enumerate(KINDS)]
    evidence = ", ".join(f"{count:,} {name}" for name, count in counts if count)
    suspects = int(errors.suspicion.is_suspect.sum())
    lines = [
        "",
        f"{len(errors.rows):,} labels judged ({evidence}): {len(errors.listed):,} contradicted by "
        f"the prediction, {suspects:,} of them suspect",
    ]
    if errors.unjudged:
        lines.append(
            f"{errors.unjudged:,} not judged: no prediction, or the only image of their class"
        )
    if errors.memorised:
        logger.warning("{}", errors.memorised)
    lines += ["", *_first_suspects(errors), *_noisiest(errors), ""]
    table = errors.folder / TABLE
    lines += [
        f"{table}  all contradicted labels, the most suspect first",
        f"{errors.folder / SHEET}  their pictures",
        f"{errors.folder / NOISE}  noise of each class",
        "",
        "Nothing was changed. Write the right label into the column 'corrected' (or drop into "
        "'action'), then:",
        f"next: classifier train ... data.corrections={table}",
    ]
    text = "\n".join(lines) + "\n"
    # Paths may hold bytes that are no UTF-8.
    sys.stdout.write(text.encode("utf-8", "replace").decode("utf-8"))
    sys.stdout.flush()


def _first_suspects(errors: LabelErrors) -> list[str]:
    chosen = [errors.cells(int(position)) for position in errors.listed[:_SHOWN]]
    if not chosen:
        return []
    columns = ("path", "split", "given", "predicted", "margin", "suspect", "evidence")
    rows = [columns] + [
        tuple(
            f"{float(cells[name]):.3f}" if name == "margin" else _cut(cells[name])
            for name in columns
        )
        for cells in chosen
    ]
    return [*_aligned(rows), ""]


def _noisiest(errors: LabelErrors) -> list[str]:
    known = [(entry.rate, entry) for entry in errors.noise if entry.rate is not None]
    known.sort(key=lambda pair: -pair[0].value)
    rows = [("class", "images", "suspects", "estimated noise", "mostly")]
    rows += [
        (_cut(entry.name), f"{entry.images:,}", str(entry.suspects), str(rate), entry.confused_with)
        for rate, entry in known[:_SHOWN]
    ]
    more = len(known) - _SHOWN
    note = "brackets: 95 % interval of the count; the classifier's own errors are not in it"
    return [
        *_aligned(rows),
        f"({f'{more} more classes have less; ' if more > 0 else ''}{note})",
    ]


def _cut(text: str) -> str:
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= _WIDEST else f"…{text[1 - _WIDEST :]}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
