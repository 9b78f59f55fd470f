"""What several tests look at and none of them wants to make anew: a cluster, or a run on it."""

from collections.abc import Callable
from typing import Generic, TypeVar

import pytest

T = TypeVar("T")


class SharedRun(Generic[T]):
    """Made for the first test that asks. When it fails, that test fails with it; the others are skipped, and name it."""

    def __init__(self, name: str, make: Callable[[], T]) -> None:
        self.name, self._make = name, make
        self._made: list[T] = []
        self._failure: str | None = None

    def __call__(self) -> T:
        if self._failure is not None:
            pytest.skip(f"{self.name} failed before: {self._failure}")
        if not self._made:
            try:
                self._made.append(self._make())
            except Exception as error:
                self._failure = first_line(error)
                raise
        return self._made[0]


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
