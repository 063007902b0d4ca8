"""The numbers of a model card: scores with intervals, worst classes and slices, calibration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from classifier_training.report.markdown import bullets, table, text
from classifier_training.run.card_facts import CardFacts, Row

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


def score_sections(facts: CardFacts) -> Iterator[str]:
    """Yield the blocks about scores, errors and calibration."""
    yield "## Scores"
    yield "With 95 % intervals: where the score would be on other images of the same kind."
    yield _scores(facts)
    if notes := list(_score_notes(facts)):
        yield bullets(notes)
    yield from _worst_classes(facts)
    yield from _worse_slices(facts)
    yield from _calibration(facts)


def _scores(facts: CardFacts) -> str:
    splits = facts.splits
    names = [name for name in _NAMES if any(name in _of(facts, split) for split in splits)]
    rows = [
        [_NAMES[name], *(_cell(_of(facts, split).get(name)) for split in splits)] for name in names
    ]
    baselines = {
        name: item for split in splits.values() for name, item in split.metrics["baselines"].items()
    }
    for name, item in baselines.items():
        of = f" on {_FEATURES.get(item['features'], 'features')}" if "features" in item else ""
        plain = text(name.replace("_", " "))
        rows.append([f"baseline: {plain}{of}, top-1 accuracy", *(
            _cell(split.metrics["baselines"].get(name, {}).get("acc_top1"))
            for split in splits.values()
        )])  # fmt: skip
    heads = [f"{name} ({split.metrics['images']:,} images)" for name, split in splits.items()]
    return table(["score", *heads], rows)


def _score_notes(facts: CardFacts) -> Iterator[str]:
    for name, split in facts.splits.items():
        if groups := split.metrics["groups"]:
            yield f"{name}: images come in {groups:,} groups; the intervals are wider for it."


def _worst_classes(facts: CardFacts) -> Iterator[str]:
    split = facts.judged_on
    rows = [row for row in facts.splits[split].classes if int(row["support"])]
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


def _worse_slices(facts: CardFacts) -> Iterator[str]:
    split = facts.judged_on
    slices = facts.splits[split].slices
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


def _calibration(facts: CardFacts) -> Iterator[str]:
    yield "## Calibration"
    if facts.calibration is None:
        yield "None was fitted: confidences are as the network gives them."
        return
    fitted, measured = facts.calibration["calibration"], facts.calibration["measured"]
    found = measured[facts.judged_on]
    lines = [
        f"Fitted on {fitted['images']:,} val images, for the reader of `labels_mapping.json`; the "
        "ONNX file gives plain logits.",
        f"Temperature {fitted['temperature']:.3f}: divide the logits by it before the softmax. "
        f"ECE on {facts.judged_on} {found['ece']['before']:.3f} before, "
        f"{found['ece']['after']:.3f} after.",
    ]
    if unsure := fitted["unsure"]:
        effect = found["unsure"]
        accuracy = effect["accuracy"]
        lines.append(
            f"Unsure below a calibrated confidence of {unsure['below']:.3f} (chosen for "
            f"{unsure['target']} {unsure['value']:g}): {shown(effect['coverage'])} of the "
            f"{facts.judged_on} images are answered, {_cell(accuracy)} of the answers right."
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
    lines += [f"Not fitted: {text(reason, 300)}." for reason in facts.calibration["not_fitted"]]
    yield bullets(lines)


def _of(facts: CardFacts, split: str) -> dict[str, Any]:
    found: dict[str, Any] = facts.splits[split].metrics["metrics"]
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


def limits(facts: CardFacts) -> Iterator[str]:
    """Yield sentences, the weightiest first."""
    yield from _untested(facts)
    yield from _no_better_than_guessing(facts)
    yield from _classes(facts)
    yield from _dependent_images(facts)
    yield from _closed_world(facts)
    yield from _chosen_on_val(facts)


def _untested(facts: CardFacts) -> Iterator[str]:
    if "test" not in facts.splits:
        yield (
            "There was no test split. The scores are of val, which also chose the best epoch and "
            "the calibration: expect lower ones on new images."
        )
    if facts.elsewhere:
        found = _listed(facts.elsewhere)
        yield f"Outside this data it was evaluated on {found} only (`evaluation/data-*`)."
        return
    yield (
        "It was never tested outside this data. Images from another camera, place, time or crop "
        "may be answered worse than the scores here say, and no number here says by how much."
    )


def _no_better_than_guessing(facts: CardFacts) -> Iterator[str]:
    metrics = facts.splits[facts.judged_on].metrics
    low, guess = metrics["metrics"]["acc_top1"]["low"], metrics["majority_class_accuracy"]
    if low <= guess:
        yield (
            f"It is not shown to be better than guessing: the interval of top-1 accuracy on "
            f"{facts.judged_on} reaches down to {low:.3f}, and always answering the most frequent "
            f"class gives {guess:.3f}."
        )


def _classes(facts: CardFacts) -> Iterator[str]:
    for split, words in (
        ("train", "learnt from fewer than {few} images: {names}. Do not rely on them"),
        ("test", "with 1 to {last} test images, whose own scores say hardly anything: {names}"),
    ):
        least = 0 if split == "train" else 1
        found = [name for name, count in facts.counts(split).items() if least <= count < _FEW]
        if found:
            said = words.format(few=_FEW, last=_FEW - 1, names=_listed(found))
            yield f"{_number(found)} {said}."
    for split in ("val", "test"):
        absent = [name for name, count in facts.counts(split).items() if not count]
        if absent:
            yield f"{_number(absent)} absent in {split} and not measured there: {_listed(absent)}."
    ratio = facts.statistics["splits"]["train"]["imbalance_ratio"]
    if ratio >= _FEW:
        yield (
            f"The most frequent class has {ratio:,.0f} times as many training images as the rarest:"
            " read balanced accuracy and macro F1, and the table of classes, before top-1 accuracy."
        )


def _dependent_images(facts: CardFacts) -> Iterator[str]:
    if facts.config["data"]["group_by"] is None:
        yield (
            "Nothing was said about which images belong together (`data.group_by`). If several "
            "show the same scene, person or video, the splits may share it, and scores and "
            "intervals are too good."
        )
    for finding in facts.check["findings"]:
        if finding["code"].endswith("across-splits"):
            found = text(finding["message"], 300)
            yield f"The check of the data found: {found}. The scores may be too good for that."
    if not facts.check["images_decoded"]:
        yield (
            "The images were not decoded before training (`data.check`): near duplicates, odd "
            "pictures and shortcuts were not looked for."
        )


def _closed_world(facts: CardFacts) -> Iterator[str]:
    fitted = {} if facts.calibration is None else facts.calibration["calibration"]
    answer = (
        f"It answers one of its {facts.sidecar['num_classes']} classes whatever the image shows."
    )
    if fitted.get("unsure") or fitted.get("out_of_distribution"):
        answer += (
            " The calibration can flag unsure answers and foreign images, but only as far as they "
            "differ from val images in confidence or energy."
        )
    yield answer


def _chosen_on_val(facts: CardFacts) -> Iterator[str]:
    seed = facts.record["seed"]
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
