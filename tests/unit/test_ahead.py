from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from classifier_training.system.parallel import prefetch_map


def test_results_come_in_order_whoever_finishes_first() -> None:
    def slow_when_even(number: int) -> int:
        time.sleep(0.02 if number % 2 == 0 else 0)
        return number * number

    found = list(prefetch_map(slow_when_even, range(20), threads=4, ahead=6))

    assert found == [number * number for number in range(20)]


@pytest.mark.promise("X3")
@pytest.mark.parametrize("ahead", [1, 3, 8])
def test_no_more_is_read_than_asked_however_slow_the_consumer(ahead: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number

    for consumed, _ in enumerate(prefetch_map(str, items(), threads=2, ahead=ahead), start=1):
        assert taken <= consumed + ahead - 1

    assert taken == 100


def test_work_goes_on_while_the_consumer_is_busy() -> None:
    third = threading.Event()

    def note(number: int) -> int:
        if number == 2:
            third.set()
        return number

    results = prefetch_map(note, range(10), threads=1, ahead=4)
    assert next(results) == 0

    assert third.wait(5)
    results.close()


def test_error_stands_in_the_place_of_its_result() -> None:
    def half(number: int) -> float:
        return 1 / (number - 3)

    results = prefetch_map(half, range(6), threads=2, ahead=4)
    found = [next(results) for _ in range(3)]

    assert found == [-1 / 3, -1 / 2, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_closing_drops_what_was_not_begun() -> None:
    begun = []

    def note(number: int) -> None:
        begun.append(number)
        time.sleep(0.05)

    results = prefetch_map(note, range(100), threads=1, ahead=50)
    next(results)
    results.close()

    assert len(begun) < 10
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
