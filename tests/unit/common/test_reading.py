"""A file of a step is read as it was written, or an edit is noticed."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from scripts.common.errors import UserError
from scripts.common.reading import SEAL_KEY, read_sealed, write_sealed


@dataclass(frozen=True)
class Figures:
    name: str
    values: list[float]
    by_name: dict[str, float | None]


FIGURES = Figures("Ω", [0.1, 1e-30, 3.0], {"b": None, "a": 2.5})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_sealed(tmp_path / "figures.json", asdict(FIGURES))
    return tmp_path / "figures.json"


def test_what_was_sealed_is_read_as_it_was_whatever_its_layout(path: Path) -> None:
    assert read_sealed(Figures, path) == FIGURES
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert read_sealed(Figures, path) == FIGURES


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "O"},
        {"values": [0.1, 1e-30]},
        {"values": [0.1, 1e-30, 3.0000000000000004]},
        {"by_name": {"b": 0, "a": 2.5}},
        {SEAL_KEY: "0" * 64},
        {SEAL_KEY: None},
    ],
)
def test_an_edit_is_noticed(path: Path, changes: dict[str, object]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(
        UserError, match=rf"^{path}: edited by hand, or of another version: its content has sha256 \w{{64}}, "
    ):
        read_sealed(Figures, path)


def test_a_file_without_a_seal_is_refused(path: Path) -> None:
    path.write_text(json.dumps(asdict(FIGURES)))
    with pytest.raises(UserError, match="its content_sha256 says nothing"):
        read_sealed(Figures, path)


def test_another_shape_is_named_by_its_key(path: Path) -> None:
    path.write_text("[]")
    with pytest.raises(UserError, match=f"^{path}: .*expected a section"):
        read_sealed(Figures, path)
