"""The score table is made only of models that were asked the same, in the order of the pipeline."""

import csv
import io
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.evaluation_inputs import provenance, records
from scripts.common.errors import UserError
from scripts.common.files import sha256_of_file
from scripts.evaluate import make_table
from scripts.evaluate.model_names import paths_by_model
from scripts.evaluate.provenance import read_provenance, read_table_provenance, write_provenance
from scripts.evaluate.records import Record, write_records

Make = Callable[..., list[dict[str, str]]]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Runs the program on records by model; the rows of its table."""

    def run(models: dict[str, list[Record]], **provenances: dict[str, Any]) -> list[dict[str, str]]:
        for model, lines in models.items():
            write_records(tmp_path / f"{model}.jsonl", lines)
            sha256 = sha256_of_file(tmp_path / f"{model}.jsonl")
            about = replace(provenance(model, records_sha256=sha256), **provenances.get(model, {}))
            write_provenance(tmp_path / f"{model}.json", about)
        argv = ["make_table.py", "--records", *[str(tmp_path / f"{model}.jsonl") for model in models]]
        argv += ["--provenances", *[str(tmp_path / f"{model}.json") for model in reversed(models)]]
        argv += ["--output-csv", str(tmp_path / "out/t.csv"), "--output-json", str(tmp_path / "out/t.json")]
        argv += ["--output-comparison", str(tmp_path / "out/t.comparison.csv")]
        monkeypatch.setattr(sys, "argv", argv)
        make_table.main()
        return list(csv.DictReader(io.StringIO((tmp_path / "out/t.csv").read_text())))

    return run


def test_models_stand_in_the_order_of_the_pipeline_and_controls_last(make: Make) -> None:
    names = ["stage2-blind", "stage2", "other", "graft", "parent", "stage1"]
    rows = make({name: records(**({"image_sha256": None} if name.endswith("-blind") else {})) for name in names})
    order = list(dict.fromkeys(row["model"] for row in rows))
    assert order == ["parent", "graft", "stage1", "stage2", "other", "stage2-blind"]


def test_the_order_of_records_and_of_arguments_changes_no_byte(make: Make, tmp_path: Path) -> None:
    make({"graft": records(), "stage1": records()})
    first = (tmp_path / "out/t.csv").read_bytes()
    make({"stage1": records()[::-1], "graft": records()[::-1]})
    assert (tmp_path / "out/t.csv").read_bytes() == first


def test_the_provenance_of_each_model_is_kept(make: Make, tmp_path: Path) -> None:
    make({"stage1": records(), "graft": records()})
    models = json.loads((tmp_path / "out/t.json").read_text())["models"]
    assert list(models) == ["graft", "stage1"]
    read = read_table_provenance(tmp_path / "out/t.json", ["graft"], tmp_path / "out/t.csv")
    assert read["graft"] == read_provenance(tmp_path / "graft.json")


def test_exchanged_files_make_no_table(make: Make) -> None:
    with pytest.raises(UserError, match="files were exchanged"):
        make({"graft": records(), "stage1": records()}, graft={"model": "stage1"}, stage1={"model": "graft"})


def test_records_that_were_edited_make_no_table(make: Make, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"stage1\.jsonl: sha256 \w+ found, ef expected by .*stage1\.json: it was edited since"
    ):
        make({"graft": records(), "stage1": records()}, stage1={"records_sha256": "ef"})
    assert not (tmp_path / "out/t.csv").exists()


def test_the_overall_rows_are_printed_and_each_two_models_compared(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make({"graft": records(), "stage1": records()})
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:]] == [
        [model, split] for model in ("graft", "stage1") for split in ("dev", "test")
    ]
    assert (tmp_path / "out/t.comparison.csv").read_text().count("graft,stage1,") == 2


def test_models_that_do_not_belong_together_are_refused_and_nothing_is_written(make: Make, tmp_path: Path) -> None:
    for models, changes, message in (
        ({"graft": records(), "stage1": records()[:-1]}, {}, "no record of question 14"),
        ({"graft": records(), "stage1": records()}, {"stage1": {"harness": "native"}}, "harness is"),
    ):
        with pytest.raises(UserError, match=message):
            make(models, **changes)
        assert not (tmp_path / "out").exists()


def test_two_runs_of_one_model_are_refused_and_none_is_dropped(tmp_path: Path) -> None:
    paths = [tmp_path / "a/stage2.jsonl", tmp_path / "b/stage2.jsonl"]
    with pytest.raises(UserError, match=r"--records: .*a/stage2\.jsonl and .*b/stage2\.jsonl are both of stage2"):
        paths_by_model(paths, "--records")
    assert list(paths_by_model([tmp_path / "stage2.json", tmp_path / "graft.json"], "--records")) == ["graft", "stage2"]


@pytest.mark.parametrize("name", ["t.csv", "t.json", "t.comparison.csv"])
def test_a_directory_in_the_place_of_an_output_is_named_before_anything_is_written(
    make: Make, tmp_path: Path, name: str
) -> None:
    (tmp_path / "out" / name).mkdir(parents=True)
    with pytest.raises(UserError, match=rf"out/{re.escape(name)}: is a directory"):
        make({"stage2": records()})
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_file()]


def test_records_without_their_provenance_are_refused(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make({"graft": records()})
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--provenances", str(tmp_path / "stage1.json")])
    with pytest.raises(UserError, match="graft, stage1 is in only one of the two"):
        make_table.main()
