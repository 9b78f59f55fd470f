"""A section of the configuration becomes an object, or one line says which key is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from scripts.common.errors import UserError
from scripts.common.reading import read_object
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


@dataclass(frozen=True)
class Absent:
    kind: Literal["none"]


@dataclass(frozen=True)
class Present:
    kind: Literal["some"]
    rate: float


@dataclass(frozen=True)
class Nested:
    layers: list[Inner]
    by_name: dict[str, Inner]
    choice: Absent | Present
    counts: dict[str, int] | None = None


NESTED: dict[str, Any] = {"layers": [{"rate": 1}], "by_name": {"a": {"rate": 2}}, "choice": {"kind": "none"}}


def test_sections_in_lists_and_under_free_keys_become_objects() -> None:
    assert settings_from(Nested, NESTED) == Nested([Inner(1)], {"a": Inner(2)}, Absent("none"))
    chosen = settings_from(Nested, NESTED | {"choice": {"kind": "some", "rate": 3}, "counts": {"a": 1}})
    assert (chosen.choice, chosen.counts) == (Present("some", 3), {"a": 1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": [{"rate": 1}, {}]}, "layers[1].rate: missing; expected float"),
        ({"layers": [3]}, "layers[0]: 3 found; expected a section with keys"),
        ({"by_name": {"a": {"rate": "x"}}}, 'by_name.a.rate: "x" found; expected float'),
        ({"choice": {"kind": "some"}}, 'choice.kind: "some" found; expected none'),
        ({"choice": 3}, "choice: 3 found; expected a section with keys"),
        ({"counts": {"a": "1"}}, 'counts: {"a": "1"} found; expected dict[str, int] | None'),
    ],
)
def test_a_wrong_key_is_named_however_deep_it_lies(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refusal:
        settings_from(Nested, NESTED | changes)
    assert str(refusal.value) == message


def test_a_file_is_named_with_the_key_and_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "inner.json"
    path.write_text('{"rate": 2}')
    assert read_object(Inner, path) == Inner(2)
    path.write_text('{"rate": "x"}')
    with pytest.raises(UserError, match=f'{path}: rate: "x" found; expected float; make this file again'):
        read_object(Inner, path)


def test_a_section_that_is_no_json_is_refused() -> None:
    with pytest.raises(UserError, match="graft: not JSON"):
        json_settings(Inner, "graft")("{rate: 1}")


def test_a_secret_in_a_section_is_refused_before_a_message_shows_it() -> None:
    with pytest.raises(UserError) as caught:
        json_settings(Outer, "stage1")('{"num_steps": "x", "flags": ["hub_token=0a1b2c"]}')
    assert str(caught.value).startswith("stage1.flags: a secret")
    assert "0a1b2c" not in str(caught.value)
