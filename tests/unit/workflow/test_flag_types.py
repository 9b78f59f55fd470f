"""Whether a value fits a flag's type, as ms-swift's annotations say it."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.workflow.flag_types import fits_flag, flag_type_finding

FITTING = [
    (1, "int"), (1, "float"), (1.5, "float"), (True, "bool"), ("x", "str"), (None, "Optional[int]"), (3, "Optional[int]"),
    (["a"], "List[str]"), ("a", "List[str]"), (["a"], "list[str] | None"), ("left", "Literal['left', 'right']"),
    (None, "Literal['a', None]"), (8, "Literal[1, 8, 'float8']"), ({"image": 5}, "Union[dict, str, NoneType]"),
    ({"a": True}, "dict[str, bool] | None"), ("no", "transformers.trainer_utils.IntervalStrategy | str"),
    ([0.5, 1], "Optional[List[float]]"), (False, "Union[str, NoneType, Literal[False]]"), (2, "int | None"),
]  # fmt: skip
NOT_FITTING = [
    (1.0, "int"), (24.0, "Optional[int]"), (True, "int"), (True, "float"), ("1e-3", "Optional[float]"), (False, "Optional[str]"),
    (1, "bool"), (["a", 1], "List[str]"), ([], "List[str]"), (["a"], "Optional[str]"), (None, "int"), ("x", "Literal['a', 'b']"),
    (True, "Literal[1, 2]"), (1.0, "Literal[1, 2]"), ({"a": 1}, "str"), ([1], "Union[dict, str, NoneType]"),
    (True, "Union[dict, str]"),
    (5, "transformers.trainer_utils.IntervalStrategy | str"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "type_name"), FITTING)
def test_a_value_of_the_type_fits(value: Any, type_name: str) -> None:
    assert fits_flag(value, type_name)


@pytest.mark.parametrize(("value", "type_name"), NOT_FITTING)
def test_another_value_does_not(value: Any, type_name: str) -> None:
    assert not fits_flag(value, type_name)


def test_the_default_of_every_flag_fits_its_type_or_is_to_be_left_out(root: Path) -> None:
    known_flags = json.loads((root / "config/known_flags.json").read_text())
    flags = {f"{command}.{name}": flag for command, flags in known_flags.items() for name, flag in flags.items()}
    misfits = {name for name, flag in flags.items() if not fits_flag(flag["default"], flag["type"])}
    assert {name for name in misfits if flags[name]["default"] not in (None, [])} == set()


def test_a_finding_says_what_yaml_made_of_the_word() -> None:
    assert flag_type_finding("x", "str") is None
    assert str(flag_type_finding("1e-3", "Optional[float]")).endswith("(YAML reads 1e-3 as text: write 1.0e-3)")
    assert "YAML reads yes, no, on and off" in str(flag_type_finding(False, "Optional[str]"))
    assert flag_type_finding("x", "Literal['a', None]") == '"x" found, one of "a", null expected'
