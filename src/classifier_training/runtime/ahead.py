"""Work done in threads ahead of its consumer, in order and within bounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
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
