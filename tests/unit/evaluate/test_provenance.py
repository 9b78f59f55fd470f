"""Answers are kept by a key of everything that decides them; rows of one table were made in the same way."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.evaluation_inputs import provenance
from scripts.common.errors import UserError
from scripts.evaluate.provenance import (
    Identity,
    Provenance,
    ServeIdentity,
    Times,
    Timing,
    check_not_exchanged,
    check_same_way,
    read_provenance,
    read_table_provenance,
    write_provenance,
    write_table_provenance,
)

# An evaluation of the demo's second stage as the key was first made of it.
IDENTITY = Identity(
    checkpoint_sha256="802dbbe5c89c7fc24fb4ac599d80e9dd81e690a2aca49df5f9c1a024cf9b253c",
    harness="vlmevalkit",
    benchmark="digits",
    benchmark_md5="3b6229ef15bfdee342cf2b7905094e2a",
    control="none",
    shuffled_by_seed=None,
    serve=ServeIdentity(
        backend="transformers",
        environment={"MAX_PIXELS": 3136},
        flags={"attn_impl": "sdpa", "max_new_tokens": 16, "served_model_name": "Qwen3-VL", "torch_dtype": "float32"},
    ),
    settings={
        "img_size": -1, "judge": "exact_matching", "max_tokens": 16, "mode": "all", "nproc": 16, "reuse": False,
        "temperature": 0.0, "video_llm": False,
    },
    versions={
        "python": "3.11.7", "ms-swift": "4.6.0", "transformers": "5.19.0", "torch": "2.13.0", "evalscope": "1.14.1",
        "ms-vlmeval": "0.0.19",
    },
)  # fmt: skip


def test_the_key_of_an_evaluation_stays_as_it_is_so_that_kept_answers_are_found_after_an_update() -> None:
    assert IDENTITY.key() == "9753bdd32123b4d9"


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpoint_sha256": "cd"},
        {"benchmark_md5": "cd"},
        {"control": "blind"},
        {"shuffled_by_seed": 0},
        {"settings": {**IDENTITY.settings, "temperature": 1}},
        {"serve": replace(IDENTITY.serve, flags={})},
        {"versions": {}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_checkpoint_or_setting_has_another_key(changes: dict[str, Any]) -> None:
    assert replace(IDENTITY, **changes).key() != IDENTITY.key()


def test_times_say_what_an_earlier_run_had_asked() -> None:
    timing = Timing(10.04, 20, 30) + Timing(1, 5, 20)
    assert Times.of(timing, 60) == Times(num_asked_before=10, startup_s=11.0, wall_time_s=36.0, questions_per_s=2.0)


def write_tables(directory: Path, provenances: dict[str, Provenance]) -> None:
    tables = directory / "t.csv", directory / "t.comparison.csv"
    for path in tables:
        path.write_text("a table\n")
    write_table_provenance(directory / "t.json", provenances, *tables)


def test_a_provenance_is_read_as_it_was_written_alone_and_in_a_table(tmp_path: Path) -> None:
    given = {"graft": provenance("graft"), "stage1": provenance("stage1", seeds=[3, 4])}
    write_provenance(tmp_path / "stage1.json", given["stage1"])
    assert read_provenance(tmp_path / "stage1.json") == given["stage1"]
    write_tables(tmp_path, given)
    assert read_table_provenance(tmp_path / "t.json", ["stage1", "graft"], tmp_path / "t.csv") == given
    assert list(json.loads((tmp_path / "t.json").read_text())["models"]) == ["graft", "stage1"]


def test_a_model_that_a_table_does_not_name_is_refused(tmp_path: Path) -> None:
    write_tables(tmp_path, {"graft": provenance("graft")})
    with pytest.raises(UserError, match=r"t\.json: nothing about stage2 found"):
        read_table_provenance(tmp_path / "t.json", ["graft", "stage2"], tmp_path / "t.csv")


def test_the_files_of_two_models_are_not_exchanged(tmp_path: Path) -> None:
    paths = {model: tmp_path / f"{model}.json" for model in ("stage1", "stage2")}
    check_not_exchanged({"stage1": provenance("stage1"), "stage2": provenance("a name of its own")}, paths)
    with pytest.raises(UserError, match=r"stage1\.json: about stage2; expected stage1: files were exchanged"):
        check_not_exchanged({"stage1": provenance("stage2"), "stage2": provenance("stage1")}, paths)


@pytest.mark.parametrize("name", ["t.csv", "t.comparison.csv"])
def test_a_table_that_was_edited_after_it_was_made_is_refused(tmp_path: Path, name: str) -> None:
    write_tables(tmp_path, {"graft": provenance("graft")})
    (tmp_path / name).write_text("a better table\n")
    expected = rf"{name}: sha256 \w+ found, \w+ expected by .*t\.json: it was edited since; .*make the"
    with pytest.raises(UserError, match=expected):
        read_table_provenance(tmp_path / "t.json", ["graft"], tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("harness", "native"),
        ("settings", {}),
        ("serve", ServeIdentity("vllm", {}, {})),
        ("seeds", [1]),
        ("benchmark", "other"),
        ("benchmark_md5", "cd"),
        ("versions", {"torch": "2"}),
    ],
)
def test_models_that_were_asked_in_another_way_are_refused(field: str, value: Any) -> None:
    models = {"graft": provenance("graft"), "stage1": provenance("stage1")}
    paths = {model: Path(f"{model}.json") for model in models}
    check_same_way(models, paths)
    models["stage1"] = replace(models["stage1"], **{field: value})
    with pytest.raises(UserError, match=rf"stage1\.json: {field} is .*, but graft\.json has"):
        check_same_way(models, paths)
