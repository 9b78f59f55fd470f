"""What the console shows of a run: jobs with the inputs that a reader looks for, and at the end where the report lies.

Snakemake names each input of a job, and here an edited program reruns what it makes, so that its modules are inputs, as are all
pictures of a list: lines of up to 81 KB. Snakemake's own log file keeps them whole.
"""

import copy
import logging
import re
from collections.abc import Iterable, Sequence

NUM_INPUTS_SHOWN = 12
_MODULE = re.compile(r"(^|/)(scripts|model)/[\w/]+\.py$")


def shown_inputs(paths: Sequence[str]) -> list[str]:
    """The first inputs that are no modules of this project, and how many more there are of each kind."""
    files = [path for path in paths if not _MODULE.search(path)]
    num_modules, num_more = len(paths) - len(files), len(files) - NUM_INPUTS_SHOWN
    more = [f"{num_more} more files"] if num_more > 0 else []
    return [*files[:NUM_INPUTS_SHOWN], *more, *([f"{num_modules} modules of programs"] if num_modules else [])]


class ShortInputs(logging.Formatter):
    """Another formatter, given records of jobs with few inputs."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        inputs = getattr(record, "input", None)
        if isinstance(inputs, Iterable) and not isinstance(inputs, str):
            record = copy.copy(record)
            record.input = shown_inputs([str(path) for path in inputs])
        return self.formatter.format(record)


def shorten_inputs(handlers: Iterable[logging.Handler]) -> None:
    """Of those handlers that write to a terminal or a pipe; files keep every name."""
    for handler in handlers:
        if (
            isinstance(handler, logging.StreamHandler)
            and not isinstance(handler, logging.FileHandler)
            and handler.formatter is not None
            and not isinstance(handler.formatter, ShortInputs)
        ):
            handler.setFormatter(ShortInputs(handler.formatter))


def closing_line(log_text: str, report_path: str) -> str | None:
    """Where the report lies, if this run has made it."""
    made = re.search(rf"^    output: {re.escape(report_path)}(,|$)", log_text, re.MULTILINE)
    return f"report: {report_path}" if made else None
