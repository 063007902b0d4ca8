"""Work done in threads ahead of its consumer, in order and within bounds."""

from __future__ import annotations

import itertools
import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from classifier_training.errors import DataError
from classifier_training.system.resources import can_start_processes

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int
) -> Generator[Result, None, None]:
    """Yield ``function(item)`` in order, computed by threads while the consumer is busy.

    At most ``ahead`` results exist that were not yielded, whatever the number of items. An
    exception comes out in the place of its result. Closing the generator drops what was not begun.

    Args:
        function: Gains from threads where it releases the interpreter lock, as decoding does.
        items: Read as they are needed, in the consumer's thread.
        threads: Number of threads.
        ahead: At least 1.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="ahead") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


_PATHS_A_PART = 64
_PARTS_AHEAD = 4


def map_parts(
    task: Callable[[list[str]], Result], paths: Iterator[str], total: int, *, workers: int
) -> Iterator[Result]:
    """Yield ``task(some paths)`` for consecutive parts of the paths, in their order.

    Processes, not threads: on two cores the interpreter's lock took half of the gain. Few paths
    are done in this process, which is faster than starting others.

    Args:
        task: A function of a module; takes at most 64 paths.
        paths: Files.
        total: How many.
        workers: Processes.

    Raises:
        DataError: The system ended one of the processes.
    """
    parts = iter(lambda: list(itertools.islice(paths, _PATHS_A_PART)), [])
    workers = min(workers, -(-total // _PATHS_A_PART))
    if workers < 2 or not can_start_processes():
        yield from map(task, parts)
        return
    # Forked where that is sound: a spawned process would import the user's script again.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_signals) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for part in parts:
                waiting.append(pool.submit(task, part))
                if len(waiting) > workers * _PARTS_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise DataError(
                "a process that read images was ended by the system",
                expected="memory for as many decoded images as there are processes",
                fix="data.num_workers=1, or leave out very large images",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _leave_signals() -> None:
    """Let the main process decide what Ctrl-C means; end at once when asked to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
