"""A section of the configuration becomes an object, or one line says which key is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from scripts.common.errors import UserError
from scripts.common.settings import json_settings, settings_from


@dataclass(frozen=True)
class Inner:
    rate: float


@dataclass(frozen=True)
class Outer:
    kind: Literal["a", "b"]
    num_steps: int
    deepspeed: str | None
    inner: Inner
    flags: Mapping[str, Any]
    datasets: list[str] = field(default_factory=list)


SECTION: dict[str, Any] = {"kind": "a", "num_steps": 3, "deepspeed": None, "inner": {"rate": 1}, "flags": {"x": [1]}}


def test_a_section_becomes_an_object_with_its_inner_sections() -> None:
    assert settings_from(Outer, SECTION, "stage1") == Outer("a", 3, None, Inner(1), {"x": [1]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": "3"}, 'stage1.num_steps: "3" found; expected int'),
        ({"num_steps": True}, "stage1.num_steps: true found; expected int"),
        ({"kind": "c"}, 'stage1.kind: "c" found; expected a or b'),
        ({"inner": {"rate": "1e-3"}}, 'stage1.inner.rate: "1e-3" found; expected float'),
        ({"inner": 3}, "stage1.inner: 3 found; expected a section"),
        ({"inner": {}}, "stage1.inner.rate: missing; expected float"),
        ({"num_step": 3}, "stage1.num_step: unknown key; expected kind, num_steps"),
        ({"deepspeed": 2}, "stage1.deepspeed: 2 found; expected str | None"),
        ({"datasets": "rows.jsonl"}, 'stage1.datasets: "rows.jsonl" found; expected list'),
    ],
)
def test_a_wrong_key_is_named_with_what_was_expected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refusal:
        settings_from(Outer, SECTION | changes, "stage1")
    assert str(refusal.value).startswith(message)


def test_a_section_that_is_no_json_is_refused() -> None:
    with pytest.raises(UserError, match="graft: not JSON"):
        json_settings(Inner, "graft")("{rate: 1}")
