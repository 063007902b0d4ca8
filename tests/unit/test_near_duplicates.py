"""Close pairs of hashes, against comparing each with each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier_training.data.checks.near_duplicates import close_pairs


@given(seed=st.integers(0, 2**32 - 1), distance=st.integers(0, 16), count=st.integers(0, 60))
@settings(max_examples=80, deadline=None)
def test_all_close_pairs_are_found_once(seed: int, distance: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    for place in range(1, count):  # most are a few bits from an earlier one
        if rng.random() < 0.7:
            flips = rng.choice(64, int(rng.integers(0, 20)), replace=False)
            near = int(hashes[rng.integers(place)])
            hashes[place] = near ^ sum(1 << int(bit) for bit in flips)
    expected = {
        (first, second, (int(hashes[first]) ^ int(hashes[second])).bit_count())
        for first in range(count)
        for second in range(first + 1, count)
        if (int(hashes[first]) ^ int(hashes[second])).bit_count() <= distance
    }
    found = [tuple(map(int, pair)) for pair in zip(*close_pairs(hashes, distance), strict=True)]
    assert len(found) == len(set(found))
    assert set(found) == expected


@pytest.mark.parametrize("distance", range(17))
def test_a_pair_at_the_limit_is_found_wherever_the_bits_are(distance: int) -> None:
    rng = np.random.default_rng(distance)
    for _ in range(50):
        flips = rng.choice(64, distance, replace=False)
        other = sum(1 << int(bit) for bit in flips)
        first, _, apart = close_pairs(np.array([0, other], dtype=np.uint64), distance)
        assert (len(first), int(apart[0])) == (1, distance)
