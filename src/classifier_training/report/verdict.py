"""How good the model is, in plain words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from classifier_training.evaluation.comparison import METRICS, Difference, compare
from classifier_training.evaluation.comparison_report import amount as difference_amount
from classifier_training.evaluation.predictions import pair_predictions, read_source
from classifier_training.report.content import Note, ScoreRow, Verdict
from classifier_training.report.formatting import (
    TITLES,
    Interval,
    amount,
    count,
    percent,
    quoted_name,
    span,
)
from classifier_training.run.reader import Run, StoredEvaluation

_LEAK = "near-duplicate-across-splits"


def verdict_of(data: Run, previous: Path | None) -> Verdict:
    """Judge a run.

    Args:
        data: What it left.
        previous: The run folder that it is compared with.

    Raises:
        DataError: The previous run has no answers to the same images.
    """
    split = data.evaluations[0]
    monitored = _monitored(data)
    accuracy = _score(split, "acc_top1")
    assert accuracy is not None  # every evaluation has it
    notes = [_against_majority(split, accuracy)]
    if previous is not None:
        notes.append(_against_previous(split, previous, monitored))
    if monitored not in ("acc_top1", "loss"):
        notes.append(_monitored_note(split, monitored))
    notes += _cautions(data, split)
    return Verdict(
        figure=percent(accuracy.value),
        claim=f"of {split.images:,} {_seen(split.name)} are classified correctly.",
        bounds=f"On other images like these it would be {span(accuracy)} (95\u202f% interval"
        + (f", {split.scores['groups']:,} groups" if split.scores.get("groups") else "")
        + ").",
        notes=tuple(notes),
        splits=tuple(f"{item.name}, {count(item.images, 'image')}" for item in data.evaluations),
        rows=tuple(_score_rows(data, monitored)),
    )


def _seen(split: str) -> str:
    return "test images" if split == "test" else "validation images"


def _monitored(data: Run) -> str:
    best: dict[str, Any] | None = data.record.get("best")
    return str(best["metric"]).partition("/")[2] if best else "acc_top1"


def _score(split: StoredEvaluation, name: str) -> Interval | None:
    content = split.scores["metrics"].get(name)
    return None if content is None else Interval.of(content)


def _against_majority(split: StoredEvaluation, accuracy: Interval) -> Note:
    majority = Interval.of(split.scores["baselines"]["majority_class"]["acc_top1"])
    name = split.classes[int(split.confusion.sum(axis=1).argmax())]
    always = (
        f"always answering the most frequent class, {quoted_name(name)}, would be right on "
        f"{percent(majority.value)}"
    )
    if accuracy.low > majority.high:
        return Note("good", f"Clearly better than guessing: {always}.")
    if accuracy.low > majority.value:
        return Note("plain", f"Better than guessing, but not by far: {always}.")
    return Note("warn", f"Not shown to be better than guessing: {always}.")


def _monitored_note(split: StoredEvaluation, name: str) -> Note:
    score = _score(split, name)
    title = TITLES.get(name, name)
    if score is None:
        return Note("plain", f"The best epoch was chosen by {title.lower()}.")
    alike = ", which counts every class alike however rare it is," if "macro" in name else ""
    return Note(
        "plain",
        f"{_lower_first(title)[0].upper()}{title[1:]}{alike} is {amount(score.value, name)} "
        f"({span(score, name)}); the best epoch was chosen by it.",
    )


def _lower_first(text: str) -> str:
    return text[0].lower() + text[1:]


def _against_previous(split: StoredEvaluation, previous: Path, monitored: str) -> Note:
    pair = pair_predictions(
        read_source(previous, split.name),
        split.predictions,
        common=True,
    )
    found = compare(pair)
    metric = monitored if monitored in found.metrics else "acc_top1"
    difference = found.difference(metric)
    title, name = METRICS[metric], f"the previous run ({previous.name})"
    where = f"{len(pair):,} images in common" if pair.left_out else f"the same {len(pair):,} images"
    bounds = f"95\u202f% interval {_bounds(difference)}, p = {difference.p:.2g}, on {where}"
    changed = f"{found.mcnemar.fixed:,} images fixed, {found.mcnemar.broken:,} broken"
    if difference.verdict == "tie":
        by = difference_amount(difference.value, metric, sign=True)
        return Note("plain", f"A tie with {name}: {by} of {title} ({bounds}); {changed}.")
    by = difference_amount(abs(difference.value), metric)
    word = difference.verdict
    return Note(
        "good" if word == "better" else "warn",
        f"{word.capitalize()} than {name} by {by} of {title} ({bounds}); {changed}.",
    )


def _bounds(found: Difference) -> str:
    if found.metric == "loss":
        return f"{found.low:+.3f} to {found.high:+.3f}"
    return f"{100 * found.low:+.1f} to {100 * found.high:+.1f} points"


def _cautions(data: Run, split: StoredEvaluation) -> list[Note]:
    notes = []
    if data.record["status"] != "finished":
        notes.append(
            Note("warn", f"The run is not finished: its status is {data.record['status']}.")
        )
    if split.name == "val":
        notes.append(
            Note(
                "warn",
                "There was no test split: the best epoch was chosen on these very images, so that "
                "the score is a little too high.",
            )
        )
    copies = sum(
        any(image.get("split") == split.name for image in item.get("images", ()))
        for finding in data.findings
        if finding.get("code") == _LEAK
        for item in finding.get("items", ())
    )
    if copies:
        notes.append(
            Note(
                "warn",
                f"{count(copies, 'pair')} of near copies with one side among these images: the "
                "score may be too high. See the data section.",
            )
        )
    return notes


def _score_rows(data: Run, monitored: str) -> list[ScoreRow]:
    rows = []
    for name, title in TITLES.items():
        scores = [_score(split, name) for split in data.evaluations]
        if any(score is not None for score in scores):
            cells = tuple(
                ("", "") if score is None else (amount(score.value, name), span(score, name))
                for score in scores
            )
            rows.append(ScoreRow(title, name == monitored, cells))
    return rows
