"""A function that is killed at each of its removals and renamings in turn, as SIGKILL would: nothing of it runs afterwards."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

_CALLS = ("unlink", "remove", "rmdir", "rename", "replace")
_MOST_CALLS = 500


class Killed(BaseException):
    """The end of the process."""


def killed_at_each_removal(
    function: Callable[[], object], prepare: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> Iterator[int]:
    """Calls `function` and ends it before its first removal or renaming, yields, calls it anew until its second, and so on.

    `prepare` makes what each call finds. Yields how many removals and renamings a call was let make; for the last time after
    a call that came through. Clean-up in `finally` does nothing.
    """
    num_left = 0

    def or_die(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal num_left
            num_left -= 1
            if num_left < 0:
                raise Killed
            return call(*arguments, **options)

        return counted

    for number in range(_MOST_CALLS):
        prepare()
        num_left = number
        with monkeypatch.context() as patched, contextlib.suppress(Killed):
            for name in _CALLS:
                patched.setattr(os, name, or_die(getattr(os, name)))
            function()
        yield number
        if num_left >= 0:
            return
    raise AssertionError(f"more than {_MOST_CALLS} removals and renamings")
