"""Each program of a rule owns what it makes while it makes it (scripts/common/ownership.py)."""

import inspect
from pathlib import Path

import pytest

from scripts.workflow import steps

# They make no file.
WITHOUT_OUTPUTS = {
    "train.show_status",
    "serve.serve",
    "serve.chat",
    "serve.app",
    "serve.page",
    "plan.make_plan",
    "workflow.summarise_check",
}
PROGRAMS = sorted(
    path
    for path in (Path(__file__).resolve().parents[3] / "scripts").glob("*/*.py")
    if steps.step_function(f"{path.parent.name}.{path.stem}")
)


def test_the_programs_of_the_rules_are_found() -> None:
    functions = inspect.getmembers(steps, inspect.isfunction)
    assert len(PROGRAMS) == sum(inspect.signature(each).return_annotation is steps.Step for _, each in functions)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_a_program_owns_its_outputs(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    owns = "with owned(" in text or " owned(" in text or "with whole_directory(" in text
    assert owns == (f"{path.parent.name}.{path.stem}" not in WITHOUT_OUTPUTS)
