"""The pictures of a table are read from base64, lists of it, and references to other questions."""

import base64
import csv
from pathlib import Path

import pandas
import pytest

from helpers.report_inputs import png
from scripts.common.errors import UserError
from scripts.questions.pictures import picture_field, pictures_of, read_pictures


def write_tsv(path: Path, images: dict[str, str]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerows([["index", "image"], *images.items()])
    return path


def test_a_row_may_name_another_rows_picture_and_hold_several(tmp_path: Path) -> None:
    one, two = (base64.b64encode(png(digit)).decode() for digit in (1, 2))
    path = write_tsv(tmp_path / "t.tsv", {"7": one, "8": "7", "9": str([one, two])})
    assert read_pictures(path, {"8", "9"}) == {"8": [png(1)], "9": [png(1), png(2)]}


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("!" * 80, "the picture of question 7 is not base64"),
        ("A" * 81, "the picture of question 7 is not base64"),
        ("['" + "!" * 80, "the picture of question 7 is not base64"),
        ("", "question 7 has no picture"),
        ("99", "question 7 refers to the picture of 99, which has none"),
        ("7", "question 7 refers to the picture of 7, which has none"),
    ],
)
def test_a_cell_that_holds_no_picture_is_refused_with_its_row(tmp_path: Path, cell: str, message: str) -> None:
    path = write_tsv(tmp_path / "t.tsv", {"7": cell})
    with pytest.raises(UserError, match=r"t\.tsv") as caught:
        read_pictures(path, {"7"})
    assert message in str(caught.value)


def test_a_question_that_the_table_lacks_is_named(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "t.tsv", {"7": base64.b64encode(png(1)).decode()})
    with pytest.raises(UserError, match="no row with index 8, which the records answer"):
        read_pictures(path, {"7", "8"})


def test_both_readers_find_the_pictures_that_a_field_was_made_of(tmp_path: Path) -> None:
    one, two = (base64.b64encode(png(digit)).decode() for digit in (1, 2))
    fields = {"0": picture_field([one]), "1": picture_field([one, two]), "2": "1", "3": picture_field([])}
    path = write_tsv(tmp_path / "t.tsv", fields)
    table = pandas.DataFrame({"index": list(fields), "image": list(fields.values())})
    assert pictures_of(table, path) == [[one], [one, two], [one, two], []]
    assert read_pictures(path, {"0", "1", "2"}) == {"0": [png(1)], "1": [png(1), png(2)], "2": [png(1), png(2)]}
