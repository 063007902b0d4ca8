"""What a model card must warn of, each sentence following from a fact of the run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from classifier_training.report.card_facts import CardFacts
from classifier_training.report.card_markdown import text

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
