"""The shuffled control: each question with the picture of another one."""

import random
from pathlib import Path

import pytest

from helpers.evaluation_inputs import benchmark_rows, write_rows
from scripts.common.errors import UserError
from scripts.questions.controls import deranged, with_shuffled_pictures
from scripts.questions.pictures import pictures_of
from scripts.questions.tables import read_benchmark, write_benchmark


@pytest.mark.parametrize("num_contents", [2, 3, 5, 40])
def test_no_position_keeps_its_own_content_and_each_is_used_once(num_contents: int) -> None:
    for seed in range(20):
        source = deranged([str(number) for number in range(num_contents)], random.Random(seed))
        assert sorted(source) == list(range(num_contents))
        assert all(position != place for position, place in enumerate(source))


def test_equal_contents_are_not_exchanged_for_each_other_where_that_can_be_avoided() -> None:
    contents = list("aaabbccd")
    for seed in range(50):
        source = deranged(contents, random.Random(seed))
        assert all(contents[position] != contents[place] for position, place in enumerate(source))


@pytest.mark.parametrize("contents", ["aaaaab", "aaaa"])
def test_every_position_gets_another_ones_content_even_when_most_are_equal(contents: str) -> None:
    source = deranged(list(contents), random.Random(0))
    assert sorted(source) == list(range(len(contents)))
    assert all(position != place for position, place in enumerate(source))


def test_pictures_change_places_within_their_split_and_all_else_stays(tmp_path: Path) -> None:
    path = write_rows(benchmark_rows(30), tmp_path / "b.tsv")
    table = read_benchmark(path)
    shuffled = with_shuffled_pictures(table, path, seed=3)
    assert shuffled.drop(columns="image").equals(table.drop(columns="image"))
    assert (shuffled["image"] != table["image"]).all()
    for split in ("dev", "test"):
        rows = table["split"] == split
        assert sorted(shuffled["image"][rows]) == sorted(table["image"][rows])


def test_the_seed_decides_the_order(tmp_path: Path) -> None:
    path = write_rows(benchmark_rows(30), tmp_path / "b.tsv")
    table = read_benchmark(path)
    first, again, other = (list(with_shuffled_pictures(table, path, seed)["image"]) for seed in (0, 0, 1))
    assert first == again != other


def test_a_written_control_reads_back_the_same(tmp_path: Path) -> None:
    rows = benchmark_rows(9)
    rows[2]["question"] = 'A "quoted"\ttab and\na second line: None'
    path = write_rows(rows, tmp_path / "b.tsv")
    shuffled = with_shuffled_pictures(read_benchmark(path), path, seed=0)
    write_benchmark(shuffled, tmp_path / "control.tsv")
    assert read_benchmark(tmp_path / "control.tsv").equals(shuffled)


def test_a_question_keeps_its_number_of_pictures(tmp_path: Path) -> None:
    rows = benchmark_rows(6)
    rows[3]["image"] = repr([rows[3]["image"], rows[4]["image"]])
    rows[5]["image"] = "4"  # VLMEvalKit's way to say: the picture of question 4
    path = write_rows(rows, tmp_path / "b.tsv")
    before = pictures_of(read_benchmark(path), path)
    after = pictures_of(with_shuffled_pictures(read_benchmark(path), path, seed=0), path)
    assert [len(pictures) for pictures in after] == [1, 1, 1, 2, 1, 1]
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_a_split_of_one_question_cannot_be_shuffled(tmp_path: Path) -> None:
    path = write_rows(benchmark_rows(4), tmp_path / "b.tsv")  # one in dev, three in test
    with pytest.raises(UserError, match="split 'dev' has one question"):
        with_shuffled_pictures(read_benchmark(path), path, seed=0)


def test_a_question_without_a_picture_takes_no_part_even_if_its_whole_split_has_none(tmp_path: Path) -> None:
    rows = benchmark_rows(12)
    for row in rows:
        if row["split"] == "dev" or row["index"] == "9":
            row["image"] = ""
    path = write_rows(rows, tmp_path / "b.tsv")
    table = read_benchmark(path, needs_pictures=False)
    shuffled = with_shuffled_pictures(table, path, seed=0)
    unseen = table["image"] == ""
    assert (shuffled["image"][unseen] == "").all()
    assert (shuffled["image"][~unseen] != table["image"][~unseen]).all()
    assert sorted(shuffled["image"]) == sorted(table["image"])
