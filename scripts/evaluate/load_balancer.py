"""Sends each request to the server with the fewest under way, so that a slow one gets fewer."""

import contextlib
import threading
from collections.abc import Iterator, Sequence


class LoadBalancer:
    """The base URLs of servers that answer alike."""

    def __init__(self, base_urls: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._nums_under_way = dict.fromkeys(base_urls, 0)

    @contextlib.contextmanager
    def least_busy(self) -> Iterator[str]:
        """The base URL for one request, until it is answered."""
        with self._lock:
            base_url = min(self._nums_under_way, key=lambda url: self._nums_under_way[url])
            self._nums_under_way[base_url] += 1
        try:
            yield base_url
        finally:
            with self._lock:
                self._nums_under_way[base_url] -= 1
