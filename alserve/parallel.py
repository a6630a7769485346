"""Work on many items at once, in threads, with results in order and never more than a few under way."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2
"""Items begun for every worker, beyond the one whose result is wanted next."""


def ordered_map(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Return the results of `work` on each item, in order.

    Items are drawn as they can be worked on, so that neither many items nor a slow reader take more memory. When the
    iterator is closed, or an error comes out of `work`, what is under way is finished and nothing more is begun.

    Args:
        work: Called from several threads at once.
        items: What to work on; drawn in the caller's thread.
        workers: Threads.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
