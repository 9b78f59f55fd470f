"""The servers that answer alike, and which of them the next request goes to."""

import contextlib
import threading
from collections.abc import Iterator, Sequence


class Addresses:
    """Base URLs of replicas; each request goes to one with the fewest under way, so that a slow one gets fewer."""

    def __init__(self, base_urls: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._num_under_way = dict.fromkeys(base_urls, 0)

    @contextlib.contextmanager
    def one(self) -> Iterator[str]:
        """The address for one request, until it is answered."""
        with self._lock:
            base_url = min(self._num_under_way, key=lambda url: self._num_under_way[url])
            self._num_under_way[base_url] += 1
        try:
            yield base_url
        finally:
            with self._lock:
                self._num_under_way[base_url] -= 1
