"""What is wrong with the questions of a file, all at once: who mends one and finds the next has to come back for each."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from scripts.common.errors import UserError

MAX_NUM_SHOWN = 20


@dataclass
class Faults:
    """The messages so far."""

    found: list[str] = field(default_factory=list)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """A UserError ends the block, and what follows the block goes on."""
        try:
            yield
        except UserError as error:
            self.found.append(str(error))

    def settle(self) -> None:
        """Raises UserError with a line for each, if there was any."""
        if not self.found:
            return
        more = [f"and {len(self.found) - MAX_NUM_SHOWN} more"] if len(self.found) > MAX_NUM_SHOWN else []
        raise UserError("\n".join([*self.found[:MAX_NUM_SHOWN], *more]))
