from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binom

from classifier_training.config.compose import compose_config, make_strict
from classifier_training.config.validate import validate
from classifier_training.data.balance import class_weights, drawing_weights
from classifier_training.data.datamodule import ImageDataModule
from classifier_training.data.manifest import Manifest
from classifier_training.data.records import Record
from classifier_training.data.sampling import Draw, EpochBatchSampler
from classifier_training.errors import ConfigError
from classifier_training.inference.class_map import ClassMap
from classifier_training.inference.preprocess import PreprocessSpec
from tests.helpers.config import config_of

ROWS = np.arange(100, 150)


def epoch_of(sampler: EpochBatchSampler, epoch: int) -> list[list[Draw]]:
    sampler.set_epoch(epoch)
    return list(sampler)


def drawn(batches: list[list[Draw]]) -> list[int]:
    return [draw.row for batch in batches for draw in batch]


@pytest.mark.promise("T10")
def test_epoch_is_a_permutation_and_epochs_differ() -> None:
    sampler = EpochBatchSampler(ROWS, batch_size=8, seed=1)

    epochs = [drawn(epoch_of(sampler, epoch)) for epoch in (0, 1, 2, 0)]

    assert all(sorted(rows) == ROWS.tolist() for rows in epochs)
    assert epochs[0] == epochs[3]
    assert len({tuple(rows) for rows in epochs}) == 3
    assert drawn(epoch_of(EpochBatchSampler(ROWS, batch_size=8, seed=2), 0)) != epochs[0]


@pytest.mark.promise("T7")
@given(
    count=st.integers(1, 60),
    batch_size=st.integers(2, 20),
    world_size=st.integers(1, 4),
    epoch=st.integers(0, 3),
)
def test_processes_share_an_epoch_without_a_batch_of_one(
    count: int, batch_size: int, world_size: int, epoch: int
) -> None:
    assume(count // world_size >= 2)
    shares = [
        epoch_of(
            EpochBatchSampler(
                np.arange(count), batch_size=batch_size, seed=0, rank=rank, world_size=world_size
            ),
            epoch,
        )
        for rank in range(world_size)
    ]

    assert all(2 <= len(batch) <= batch_size + 1 for share in shares for batch in share)
    assert len({len(share) for share in shares}) == 1, "a process would wait for ever"
    rows = [row for share in shares for row in drawn(share)]
    assert len(rows) == len(set(rows)) == count - count % world_size


@pytest.mark.promise("R1")
@given(
    done=st.integers(0, 6),
    epoch=st.integers(0, 3),
    is_weighted=st.booleans(),
    count=st.sampled_from([48, 49, 50]),
)
def test_resumed_sampler_goes_on_where_it_stopped(
    done: int, epoch: int, is_weighted: bool, count: int
) -> None:
    weights = drawing_weights(np.arange(count) % 3, "weighted" if is_weighted else "none")
    rows = np.arange(count)
    whole = EpochBatchSampler(rows, batch_size=8, seed=5, weights=weights)
    resumed = EpochBatchSampler(
        rows, batch_size=8, seed=5, weights=weights, epoch=epoch, start_batch=done
    )

    assert list(resumed) == epoch_of(whole, epoch)[done:], "before any set_epoch"
    assert epoch_of(resumed, epoch) == epoch_of(whole, epoch)[done:]
    assert epoch_of(resumed, epoch + 1) == epoch_of(whole, epoch + 1)
    assert len(resumed) == len(whole) == len(epoch_of(whole, epoch))


@pytest.mark.promise("T10")
def test_draws_know_their_place_over_all_processes() -> None:
    alone = [draw for batch in EpochBatchSampler(ROWS, batch_size=5, seed=3) for draw in batch]
    shared = [
        draw
        for rank in range(2)
        for batch in EpochBatchSampler(ROWS, batch_size=5, seed=3, rank=rank, world_size=2)
        for draw in batch
    ]

    assert sorted(shared) == sorted(alone)


@pytest.mark.promise("D11")
def test_weighted_sampler_draws_classes_equally() -> None:
    labels = np.repeat([0, 1, 2, 3], [640, 300, 50, 10])
    rows = np.arange(1000, 2000)
    weights = drawing_weights(labels, "weighted")
    sampler = EpochBatchSampler(rows, batch_size=50, seed=0, weights=weights)

    for epoch in range(5):
        counts = Counter(int(labels[row - 1000]) for row in drawn(epoch_of(sampler, epoch)))
        low, high = binom.interval(0.9999, 1000, 0.25)
        assert sum(counts.values()) == 1000
        assert all(low <= counts[label] <= high for label in range(4)), counts


@pytest.mark.promise("D11")
def test_weighted_sampler_draws_equally_within_a_class() -> None:
    labels = np.repeat([0, 1], [90, 10])
    sampler = EpochBatchSampler(
        np.arange(100), batch_size=10, seed=0, weights=drawing_weights(labels, "weighted")
    )

    counts = Counter(row for epoch in range(200) for row in drawn(epoch_of(sampler, epoch)))

    rare = [counts[row] for row in range(90, 100)]
    low, high = binom.interval(0.9999, 20_000, 0.05)
    assert all(low <= count <= high for count in rare), rare


@pytest.mark.promise("D11")
def test_sqrt_sampler_draws_by_the_root_of_the_count() -> None:
    """Classes of 900, 400 and 100 images come as 30 : 20 : 10."""
    labels = np.repeat([0, 1, 2], [900, 400, 100])
    weights = drawing_weights(labels, "sqrt")
    assert weights is not None
    np.testing.assert_allclose(np.bincount(labels, weights), [1 / 2, 1 / 3, 1 / 6], rtol=1e-12)
    assert len(set(weights[labels == 1])) == 1
    sampler = EpochBatchSampler(np.arange(1400), batch_size=50, seed=0, weights=weights)

    drawn_labels = np.bincount(labels[drawn(epoch_of(sampler, 0))])

    for count, share in zip(drawn_labels, [1 / 2, 1 / 3, 1 / 6], strict=True):
        low, high = binom.interval(0.9999, 1400, share)
        assert low <= count <= high
    assert drawing_weights(labels, "none") is None


@pytest.mark.promise("D11")
@pytest.mark.parametrize("sampler", ["weighted", "sqrt"])
def test_the_configured_sampler_is_the_one_that_draws(folder_data: Path, sampler: str) -> None:
    data = config_of(f"data.data_root={folder_data}", f"data.sampler={sampler}").data
    few = Manifest.build(
        [
            Record(f"train/{label}/{at:03d}.png", label, "train", "", 0, "")
            for label, count in (("0", 9), ("00", 1))
            for at in range(count)
        ],
        ClassMap(("0", "00")),
        folder_data,
    )
    spec = PreprocessSpec(16, "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    module = ImageDataModule(few, data, spec, transform=None, seed=0)

    draws = np.concatenate([module.sampler().order(epoch) for epoch in range(400)])

    rare = float((few.labels[draws] == 1).mean())
    assert rare == pytest.approx({"weighted": 0.5, "sqrt": 0.25}[sampler], abs=0.03)


@pytest.mark.promise("D11")
def test_class_weights_are_as_published() -> None:
    counts = np.array([1000, 100, 0, 10])

    assert class_weights(counts, "none") is None
    inverse = class_weights(counts, "inverse")
    effective = class_weights(counts, "effective")

    assert inverse is not None
    assert effective is not None
    # 1/1000 : 1/100 : 1/10 scaled to mean 1 over the three classes present.
    np.testing.assert_allclose(inverse, [3 / 111, 30 / 111, 0, 300 / 111], rtol=1e-6)
    # Effective numbers of 1000, 100 and 10 images by Cui et al. for b = 0.999, by hand.
    numbers = np.array([632.304575, 95.2078529, 9.9551198])
    products = effective[[0, 1, 3]] * numbers
    np.testing.assert_allclose(products / products[0], 1, rtol=1e-5)
    assert effective.sum() == pytest.approx(3)
    assert effective[2] == 0


@pytest.mark.promise("D11")
@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (("data.sampler=weighted", "loss.class_weights=inverse"), "loss.class_weights"),
        (("data.sampler=sqrt", "loss=weighted"), "loss.class_weights"),
        (("data.sampler=sqrt", "loss=logit_adjusted"), "loss.logit_adjustment"),
        (("loss=weighted", "loss.logit_adjustment=0.5"), "loss.logit_adjustment"),
    ],
)
def test_correcting_the_imbalance_twice_is_refused(overrides: tuple[str, ...], key: str) -> None:
    both = ["data.data_root=x", *overrides]

    with pytest.raises(ConfigError, match="configuration") as caught:
        validate(compose_config(make_strict(both)), allow_modules=[])
    validate(
        compose_config(make_strict([*both, "data.allow_double_balance=true"])), allow_modules=[]
    )

    assert [problem.key for problem in caught.value.problems] == [key]
    assert "corrects the same imbalance twice" in str(caught.value)
    assert caught.value.exit_code == 2
