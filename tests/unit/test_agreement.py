"""The tolerance of the project: logits within 1e-5 of the largest, and the same class."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from classifier_training.inference.agreement import compare_logits, softmax


def rows(*values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float32)


@pytest.mark.promise("X1")
@pytest.mark.parametrize(
    ("left", "right", "holds"),
    [
        pytest.param([0.5, 0.1], [0.5, 0.1], True, id="equal"),
        pytest.param([0.5, 0.1], [0.500009, 0.1], True, id="small logits: 1e-5 absolute"),
        pytest.param([0.5, 0.1], [0.50002, 0.1], False, id="small logits: more"),
        pytest.param([40.0, 1.0], [40.0003, 1.0], True, id="large logits: 1e-5 of the largest"),
        pytest.param([40.0, 1.0], [40.0006, 1.0], False, id="large logits: more"),
        pytest.param([-40.0, 1.0], [-40.0003, 1.0], True, id="the largest may be negative"),
        pytest.param([40.0, 1.0], [40.0, 1.0006], False, id="a small logit beside a large one"),
        pytest.param([0.1, 0.1000001], [0.1000001, 0.1], True, id="a tie broken the other way"),
        pytest.param([1.0, 2.0], [np.nan, 2.0], False, id="not a number"),
        pytest.param([np.nan, 2.0], [np.nan, 2.0], False, id="not a number on both sides"),
        pytest.param([np.inf, 2.0], [np.inf, 2.0], False, id="infinite on both sides"),
        pytest.param([1.0, 2.0], [1.0, -np.inf], False, id="infinite on one side"),
    ],
)
def test_when_two_answers_agree(left: list[float], right: list[float], holds: bool) -> None:
    assert compare_logits(rows(left), rows(right)).holds is holds


@pytest.mark.promise("X1")
def test_the_worst_image_is_named_and_changed_classes_are_counted() -> None:
    left = rows([1, 2, 3], [3, 2, 1], [5, 0, 0], [0, 1, 0])
    right = rows([1, 2, 3], [1, 2, 3], [5, 0, 0.001], [0, 1, 0])

    agreement = compare_logits(left, right)

    assert (agreement.images, agreement.flips, agreement.worst_image) == (4, 1, 1)
    assert agreement.worst == pytest.approx(2 / 3)
    assert "1 changed classes" in str(agreement)


@pytest.mark.promise("X1")
def test_a_class_that_changes_among_many_images_is_found() -> None:
    left = np.random.default_rng(0).normal(0, 5, (500, 43)).astype(np.float32)
    right = left.copy()
    right[321] = np.roll(right[321], 1)

    agreement = compare_logits(left, right)

    assert not agreement.holds
    assert (agreement.worst_image, agreement.flips) == (321, 1)


@pytest.mark.promise("X1")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 1.0, 30.0]), st.floats(0.05, 20))
def test_a_difference_holds_exactly_up_to_the_tolerance(
    seed: int, size: float, share: float
) -> None:
    rng = np.random.default_rng(seed)
    left = rng.normal(0, size, (1, 9)).astype(np.float32)
    tolerance = 1e-5 * max(1.0, float(np.abs(left).max()))
    right = left.copy()
    lowest = int(left.argmin())  # so that no class changes
    right[0, lowest] -= np.float32(share * tolerance)
    moved = abs(float(right[0, lowest]) - float(left[0, lowest]))  # after rounding to float32

    assert compare_logits(left, right).holds is (moved <= tolerance)


@pytest.mark.promise("X1")
def test_shapes_must_be_the_same() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        compare_logits(np.zeros((1, 3), np.float32), np.zeros((2, 3), np.float32))
    assert compare_logits(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)).holds


@pytest.mark.promise("N1")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1.0, 100.0, 1e5]))
def test_softmax_is_that_of_scipy_for_logits_of_any_size(seed: int, size: float) -> None:
    logits = np.random.default_rng(seed).normal(0, size, (5, 43)).astype(np.float32)

    found = softmax(logits)

    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found, special.softmax(logits.astype(float), axis=1), rtol=1e-6, atol=1e-37
    )
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
