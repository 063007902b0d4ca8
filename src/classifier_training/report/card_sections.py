"""The numbers of a model card: scores with intervals, worst classes and slices, calibration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from classifier_training.report.markdown import bullets, table, text
from classifier_training.run.reader import Run
from classifier_training.system.tables import Row

_NAMES = {
    "acc_top1": "top-1 accuracy",
    "acc_top5": "top-5 accuracy",
    "acc_macro": "balanced accuracy",
    "f1_macro": "macro F1",
    "precision_macro": "macro precision",
    "auroc_macro": "macro AUROC",
    "loss": "log loss",
    "ece": "calibration error (ECE), uncalibrated",
}
_WORST = 10
_FEATURES = {
    "initial_backbone": "frozen features the training began with",
    "trained_network": "this network's own features",
}


def shown(estimate: dict[str, Any]) -> str:
    """Return a score and its interval."""
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def score_sections(run: Run) -> Iterator[str]:
    """Yield the blocks about scores, errors and calibration."""
    yield "## Scores"
    yield "With 95 % intervals: where the score would be on other images of the same kind."
    yield _scores(run)
    if notes := list(_score_notes(run)):
        yield bullets(notes)
    yield from _worst_classes(run)
    yield from _worse_slices(run)
    yield from _calibration(run)


def _scores(run: Run) -> str:
    splits = {name: run.metrics(name) for name in ("val", "test") if run.is_evaluated(name)}
    names = [name for name in _NAMES if any(name in _of(run, split) for split in splits)]
    rows = [
        [_NAMES[name], *(_cell(_of(run, split).get(name)) for split in splits)] for name in names
    ]
    baselines = {
        name: item for split in splits.values() for name, item in split["baselines"].items()
    }
    for name, item in baselines.items():
        of = f" on {_FEATURES.get(item['features'], 'features')}" if "features" in item else ""
        plain = text(name.replace("_", " "))
        rows.append([f"baseline: {plain}{of}, top-1 accuracy", *(
            _cell(split["baselines"].get(name, {}).get("acc_top1"))
            for split in splits.values()
        )])  # fmt: skip
    heads = [f"{name} ({split['images']:,} images)" for name, split in splits.items()]
    return table(["score", *heads], rows)


def _score_notes(run: Run) -> Iterator[str]:
    for name in filter(run.is_evaluated, ("val", "test")):
        if groups := run.metrics(name)["groups"]:
            yield f"{name}: images come in {groups:,} groups; the intervals are wider for it."


def _worst_classes(run: Run) -> Iterator[str]:
    split = run.reported_split
    rows = [row for row in run.evaluation(split).per_class if int(row["support"])]
    rows.sort(key=lambda row: (float(row["f1"]), float(row["f1_high"] or 1)))
    yield f"### Classes with the lowest F1 on {split}"
    yield table(
        ["class", "images", "F1", "recall", "precision"],
        (
            [
                text(row["class"]),
                row["support"],
                *(_of_row(row, key) for key in ("f1", "recall", "precision")),
            ]
            for row in rows[:_WORST]
        ),
    )


def _worse_slices(run: Run) -> Iterator[str]:
    split = run.reported_split
    slices = run.evaluation(split).slices
    if not slices:
        return
    yield f"### Slices of {split}"
    worse = [row for row in slices if row["worse"] == "true"]
    if not worse:
        yield (
            f"None of {len(slices)} slices of metadata and image size is worse than the rest "
            "beyond chance."
        )
        return
    yield f"Worse than the rest beyond chance, of {len(slices)} looked at:"
    yield table(
        ["slice", "images", "top-1 accuracy", "the rest"],
        (
            [
                f"{text(row['key'])} = {text(row['value'])}",
                row["images"],
                _of_row(row, "acc_top1"),
                f"{float(row['acc_top1_rest']):.3f}",
            ]
            for row in worse[:_WORST]
        ),
    )


def _calibration(run: Run) -> Iterator[str]:
    yield "## Calibration"
    if not run.calibration:
        yield "None was fitted: confidences are as the network gives them."
        return
    fitted, measured = run.calibration["calibration"], run.calibration["measured"]
    found = measured[run.reported_split]
    lines = [
        f"Fitted on {fitted['images']:,} val images, for the reader of `labels_mapping.json`; the "
        "ONNX file gives plain logits.",
        f"Temperature {fitted['temperature']:.3f}: divide the logits by it before the softmax. "
        f"ECE on {run.reported_split} {found['ece']['before']:.3f} before, "
        f"{found['ece']['after']:.3f} after.",
    ]
    if unsure := fitted["unsure"]:
        effect = found["unsure"]
        accuracy = effect["accuracy"]
        lines.append(
            f"Unsure below a calibrated confidence of {unsure['below']:.3f} (chosen for "
            f"{unsure['target']} {unsure['value']:g}): {shown(effect['coverage'])} of the "
            f"{run.reported_split} images are answered, {_cell(accuracy)} of the answers right."
        )
    if conformal := fitted["conformal"]:
        sets = found["conformal"]
        lines.append(
            f"Conformal sets for a coverage of {conformal['coverage']:g}: every class with at "
            f"least {conformal['least_probability']:.3f}. They hold the truth in "
            f"{_cell(sets['coverage'])}, with {sets['mean_size']:.2f} classes on average."
        )
    if outside := fitted["out_of_distribution"]:
        lines.append(f"Out of distribution: {outside['score']} above {outside['above']:.3f}.")
    lines += [f"Not fitted: {text(reason, 300)}." for reason in run.calibration["not_fitted"]]
    yield bullets(lines)


def _of(run: Run, split: str) -> dict[str, Any]:
    found: dict[str, Any] = run.metrics(split)["metrics"]
    return found


def _cell(estimate: dict[str, Any] | None) -> str:
    return "" if estimate is None else shown(estimate)


def _of_row(row: Row, key: str) -> str:
    bounds = (row[f"{key}_low"], row[f"{key}_high"])
    interval = f" [{float(bounds[0]):.2f}, {float(bounds[1]):.2f}]" if all(bounds) else ""
    return f"{float(row[key]):.2f}{interval}"


# Below so many images a class is learnt from too little, or its scores say hardly anything.
_FEW = 10
_NAMED = 12


def limits(run: Run) -> Iterator[str]:
    """Yield sentences, the weightiest first."""
    yield from _untested(run)
    yield from _no_better_than_guessing(run)
    yield from _classes(run)
    yield from _dependent_images(run)
    yield from _closed_world(run)
    yield from _chosen_on_val(run)


def _untested(run: Run) -> Iterator[str]:
    if not run.is_evaluated("test"):
        yield (
            "There was no test split. The scores are of val, which also chose the best epoch and "
            "the calibration: expect lower ones on new images."
        )
    if elsewhere := _elsewhere(run):
        found = _listed(elsewhere)
        yield f"Outside this data it was evaluated on {found} only (`evaluation/data-*`)."
        return
    yield (
        "It was never tested outside this data. Images from another camera, place, time or crop "
        "may be answered worse than the scores here say, and no number here says by how much."
    )


def _elsewhere(run: Run) -> list[str]:
    """Return the names of data outside the run that the model was evaluated on."""
    found = run.path.glob("evaluation/data-*/metrics.json")
    return sorted(path.parent.name.removeprefix("data-") for path in found)


def _no_better_than_guessing(run: Run) -> Iterator[str]:
    metrics = run.metrics(run.reported_split)
    low, guess = metrics["metrics"]["acc_top1"]["low"], metrics["majority_class_accuracy"]
    if low <= guess:
        yield (
            "It is not shown to be better than guessing: the interval of top-1 accuracy on "
            f"{run.reported_split} reaches down to {low:.3f}, and always predicting the most "
            f"frequent class gives {guess:.3f}."
        )


def _classes(run: Run) -> Iterator[str]:
    for split, words in (
        ("train", "learnt from fewer than {few} images: {names}. Do not rely on them"),
        ("test", "with 1 to {last} test images, whose own scores say hardly anything: {names}"),
    ):
        least = 0 if split == "train" else 1
        found = [name for name, count in run.counts(split).items() if least <= count < _FEW]
        if found:
            said = words.format(few=_FEW, last=_FEW - 1, names=_listed(found))
            yield f"{_number(found)} {said}."
    for split in ("val", "test"):
        absent = [name for name, count in run.counts(split).items() if not count]
        if absent:
            yield f"{_number(absent)} absent in {split} and not measured there: {_listed(absent)}."
    ratio = run.statistics["splits"]["train"]["imbalance_ratio"]
    if ratio >= _FEW:
        yield (
            f"The most frequent class has {ratio:,.0f} times as many training images as the rarest:"
            " read balanced accuracy and macro F1, and the table of classes, before top-1 accuracy."
        )


def _dependent_images(run: Run) -> Iterator[str]:
    if run.config["data"]["group_by"] is None:
        yield (
            "Nothing was said about which images belong together (`data.group_by`). If several "
            "show the same scene, person or video, the splits may share it, and scores and "
            "intervals are too good."
        )
    for finding in run.findings:
        if finding["code"].endswith("across-splits"):
            found = text(finding["message"], 300)
            yield f"The check of the data found: {found}. The scores may be too good for that."
    if not run.check["images_decoded"]:
        yield (
            "The images were not decoded before training (`data.check`): near duplicates, odd "
            "pictures and shortcuts were not looked for."
        )


def _closed_world(run: Run) -> Iterator[str]:
    fitted = {} if run.calibration is None else run.calibration["calibration"]
    answer = f"It answers one of its {run.sidecar['num_classes']} classes whatever the image shows."
    if fitted.get("unsure") or fitted.get("out_of_distribution"):
        answer += (
            " The calibration can flag unsure answers and foreign images, but only as far as they "
            "differ from val images in confidence or energy."
        )
    yield answer


def _chosen_on_val(run: Run) -> Iterator[str]:
    seed = run.record["seed"]
    yield (
        f"It is one run with one seed ({seed}). The intervals are about other test images, not "
        "about training again."
    )


def _number(names: list[str]) -> str:
    return "1 class" if len(names) == 1 else f"{len(names)} classes"


def _listed(names: Iterable[str]) -> str:
    every = [text(name) for name in names]
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return ", ".join(every[:_NAMED]) + more
