"""The user's files that a configuration names and that are not there.

Snakemake would say so of the first one, and of none where an earlier run has made something from a file of another name: it then
takes the earlier rows for the present ones.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.data.source_text import file_of_source
from scripts.questions.catalogue import listed_benchmarks
from scripts.workflow.layout import DIGITS_DIR, STAGES, text_path


def _named_files(config: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(key, path, what it is expected to be)"""
    for stage in STAGES:
        for number, source in enumerate(config[stage]["datasets"]):
            if path := file_of_source(source):
                yield f"{stage}.datasets[{number}]", str(path), "training rows"
    for name, listed in listed_benchmarks(config["evaluate"]).items():
        if listed.own_path:
            yield f"evaluate.benchmarks.{name}", str(listed.own_path), "questions"
    for section in ("fidelity", "calibration"):
        yield f"{section}.text", text_path(config[section]["text"]), "a text"


def require_users_files(config: Mapping[str, Any]) -> None:
    """Raises UserError with a line for each file that is not there; the demo makes its own."""
    made = f"{DIGITS_DIR}/" if "demo" in config else None
    lines = [
        f"{key}: {path} not found; expected {what}; check the path"
        for key, path, what in _named_files(config)
        if not Path(path).exists() and not (made and path.startswith(made))
    ]
    if lines:
        raise UserError("\n".join(["configuration:", *(f"  {line}" for line in lines)]))
