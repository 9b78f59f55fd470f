"""A benchmark that could not be asked as it stands is refused before anything is served."""

from pathlib import Path

import pytest

from helpers.evaluation_inputs import COLUMNS, benchmark_rows, write_rows
from scripts.common.errors import UserError
from scripts.questions.pictures import pictures_of
from scripts.questions.tables import questions_of, read_benchmark, require_scorable


def questions_from(rows: list[dict[str, str]], path: Path) -> list:
    table = read_benchmark(write_rows(rows, path))
    return questions_of(table, pictures_of(table, path))


def test_questions_carry_their_groups_and_a_fingerprint_of_their_picture(tmp_path: Path) -> None:
    first, second, *_ = questions_from(benchmark_rows(6), tmp_path / "b.tsv")
    assert (first.index, first.split, first.discipline, first.subject) == ("0", "dev", "digits", "even")
    assert len(first.image_sha256) == 64
    assert first.image_sha256 != second.image_sha256


def test_a_benchmark_without_groups_has_one_split_and_none(tmp_path: Path) -> None:
    path = write_rows(benchmark_rows(3), tmp_path / "b.tsv", COLUMNS[:8])
    table = read_benchmark(path)
    (question, *_) = questions_of(table, pictures_of(table, path))
    assert (question.split, question.discipline, question.subject) == ("all", None, None)


def test_an_absent_benchmark_is_named_with_the_command_that_fetches_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"MMMU_DEV_VAL.tsv: not found.*fetch_benchmark.py --benchmark MMMU_DEV_VAL"):
        read_benchmark(tmp_path / "MMMU_DEV_VAL.tsv")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.tsv").touch()
    with pytest.raises(UserError, match="not a TSV"):
        read_benchmark(tmp_path / "b.tsv")


def test_a_header_without_questions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no questions found"):
        read_benchmark(write_rows([], tmp_path / "b.tsv"))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no column answer"):
        read_benchmark(write_rows(benchmark_rows(2), tmp_path / "b.tsv", COLUMNS[:7]))


def test_an_index_on_two_rows_is_named(tmp_path: Path) -> None:
    rows = benchmark_rows(5)
    rows[4]["index"] = "2"
    with pytest.raises(UserError, match="index 2 stands on more than one row"):
        read_benchmark(write_rows(rows, tmp_path / "b.tsv"))


def test_a_question_without_a_picture_is_named(tmp_path: Path) -> None:
    rows = benchmark_rows(5)
    rows[3]["image"] = ""
    with pytest.raises(UserError, match="question 3 has no picture"):
        read_benchmark(write_rows(rows, tmp_path / "b.tsv"))


def test_a_picture_that_is_not_base64_is_named(tmp_path: Path) -> None:
    rows = benchmark_rows(5)
    rows[3]["image"] = "?" * 100
    with pytest.raises(UserError, match="the picture of question 3 is not base64"):
        questions_from(rows, tmp_path / "b.tsv")


def test_a_reference_to_a_question_that_is_not_there_is_named(tmp_path: Path) -> None:
    rows = benchmark_rows(5)
    rows[3]["image"] = "17"
    with pytest.raises(UserError, match="question 3 refers to the picture of 17"):
        questions_from(rows, tmp_path / "b.tsv")


def test_an_option_that_vlmevalkit_would_not_see_is_named(tmp_path: Path) -> None:
    rows = benchmark_rows(5)
    rows[3]["C"] = "None"
    path = write_rows(rows, tmp_path / "b.tsv")
    with pytest.raises(UserError, match="C of question 3 is 'None', which VLMEvalKit reads as absent"):
        require_scorable(read_benchmark(path), path)


@pytest.mark.parametrize("wrong", ["E", "", "the first"])
def test_an_answer_that_is_no_option_is_named(tmp_path: Path, wrong: str) -> None:
    rows = benchmark_rows(5)
    rows[3]["answer"] = wrong
    path = write_rows(rows, tmp_path / "b.tsv")
    with pytest.raises(UserError, match=r"the answer of question 3 is .*expected the letter"):
        require_scorable(read_benchmark(path), path)


def test_an_answer_that_is_an_option_of_other_questions_alone_is_named(tmp_path: Path) -> None:
    rows = benchmark_rows(5)
    rows[3] |= {"D": "", "answer": "D"}
    rows[0]["D"] = "none of them"
    path = write_rows(rows, tmp_path / "b.tsv")
    with pytest.raises(UserError, match=r"the answer of question 3 is 'D'; expected the letter .*\(A, B, C\)"):
        require_scorable(read_benchmark(path), path)


def test_the_fingerprint_is_of_all_pictures_of_a_question(tmp_path: Path) -> None:
    rows = benchmark_rows(6)
    first, second, third = (row["image"] for row in rows[:3])
    rows[4]["image"], rows[5]["image"] = repr([first, second]), repr([first, third])
    one, other = questions_from(rows, tmp_path / "b.tsv")[4:]
    assert one.image_sha256 != other.image_sha256


def test_a_question_may_name_another_ones_picture(tmp_path: Path) -> None:
    rows = benchmark_rows(4)
    rows[3]["image"] = "2"
    questions = questions_from(rows, tmp_path / "b.tsv")
    assert questions[3].image_sha256 == questions[2].image_sha256 != questions[1].image_sha256


def test_numbers_that_would_be_shown_with_a_fraction_are_refused(tmp_path: Path) -> None:
    rows = benchmark_rows(5)
    require_scorable(read_benchmark(write_rows(rows, tmp_path / "b.tsv")), tmp_path / "b.tsv")
    rows[4]["D"] = ""
    path = write_rows(rows, tmp_path / "b.tsv")
    with pytest.raises(UserError, match=r"VLMEvalKit would show 3 as 3\.0"):
        require_scorable(read_benchmark(path), path)
