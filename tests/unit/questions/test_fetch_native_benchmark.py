"""A table in place is left alone if the file beside it has its md5; any other is refused, never replaced."""

from dataclasses import asdict
from pathlib import Path

import pytest

from helpers.evaluation_inputs import benchmark_rows, write_rows
from scripts.common.errors import UserError
from scripts.common.files import md5_of_file, write_json_atomically
from scripts.questions.fetch_native_benchmark import FetchedTable, is_in_place, linked_copy


def fetched(md5: str) -> FetchedTable:
    return FetchedTable("mmmu", "modelscope:AI-ModelScope/MMMU", None, "v1.0", "1.14.1", 3, md5)


def test_an_absent_table_is_to_be_fetched(tmp_path: Path) -> None:
    assert not is_in_place(tmp_path / "mmmu.tsv", tmp_path / "mmmu.json")


def test_a_table_with_the_md5_that_was_written_down_is_left_alone(tmp_path: Path) -> None:
    tsv = write_rows(benchmark_rows(3), tmp_path / "mmmu.tsv")
    write_json_atomically(tmp_path / "mmmu.json", asdict(fetched(md5_of_file(tsv))))
    assert is_in_place(tsv, tmp_path / "mmmu.json")


@pytest.mark.parametrize(("md5", "expected"), [("0" * 32, "0" * 32), (None, "no record of it")])
def test_another_table_is_refused_and_left_as_it_is(tmp_path: Path, md5: str | None, expected: str) -> None:
    tsv = write_rows(benchmark_rows(3), tmp_path / "mmmu.tsv")
    before = tsv.read_bytes()
    if md5:
        write_json_atomically(tmp_path / "mmmu.json", asdict(fetched(md5)))
    with pytest.raises(UserError, match=f"md5 {md5_of_file(tsv)} found, {expected} in mmmu.json; it was left as it is"):
        is_in_place(tsv, tmp_path / "mmmu.json")
    assert tsv.read_bytes() == before


def test_a_snapshot_is_read_through_links_of_which_evalscope_may_remove_one(tmp_path: Path) -> None:
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot/dataset_infos.json").write_text("{}")
    copy = linked_copy(tmp_path / "snapshot", tmp_path / "copy")
    assert (copy / "dataset_infos.json").read_text() == "{}"
    (copy / "dataset_infos.json").unlink()
    assert (tmp_path / "snapshot/dataset_infos.json").exists()
