"""Several files at a time, in threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], jobs: int, stop: threading.Event | None = None
) -> Iterator[Result]:
    """Apply a function to items, `jobs` at a time, and yield the results in order.

    On leaving early, by an exception or an interrupt, what has not begun is dropped, `stop` is set for what has begun,
    and that is waited for; after an interrupt, what is finished by then is yielded before it is raised again.
    """
    pool = ThreadPoolExecutor(max(1, jobs))
    futures: deque[Future[Result]] = deque()
    try:
        try:
            futures.extend(pool.submit(function, item) for item in items)
            while futures:
                result = futures[0].result()
                futures.popleft()
                yield result
        finally:
            if stop:
                stop.set()
            pool.shutdown(cancel_futures=True)
    except (KeyboardInterrupt, SystemExit):
        finished = [each for each in futures if each.done() and not each.cancelled() and not each.exception()]
        yield from (each.result() for each in finished)
        raise
