"""A table of the user's own is asked as it stands, or refused by column and question before anything is trained."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from helpers.evaluation_inputs import picture
from scripts.common.errors import UserError
from scripts.questions.own_tables import read_own_table

COLUMNS = ("index", "question", "A", "B", "answer", "image")
ROWS = (["0", "Which?", "one", "two", "B", picture("7")], ["1", "And here?", "three", "four", "A", picture("8")])
NAMES = {"vlmevalkit": True, "native": False}


def table(path: Path, rows: list[list[str]] | None = None, columns: tuple[str, ...] = COLUMNS, start: str = "") -> Path:
    """A table as it stands in the file: nothing is quoted that is not quoted in the cells."""
    lines = ["\t".join(columns), *("\t".join(row) for row in rows or ROWS)]
    path.write_text(start + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def with_cell(column: str, text: str, number: int = 1) -> list[list[str]]:
    rows = [list(row) for row in ROWS]
    rows[number][COLUMNS.index(column)] = text
    return rows


def refusal(path: Path, backend: str = "vlmevalkit") -> str:
    with pytest.raises(UserError) as caught:
        read_own_table(path, backend)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("backend", NAMES)
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_a_sound_table_passes_with_and_without_a_byte_order_mark(tmp_path: Path, backend: str, start: str) -> None:
    assert len(read_own_table(table(tmp_path / "t.tsv", start=start), backend)) == len(ROWS)


@pytest.mark.parametrize("backend", NAMES)
@pytest.mark.parametrize("index", ["../../up", "a/b", "a\\b", " 1", "1 ", "", "..", "x" * 200])
def test_an_index_that_is_no_name_of_a_file_is_refused(tmp_path: Path, backend: str, index: str) -> None:
    assert f"index {index!r}: " in refusal(table(tmp_path / "t.tsv", with_cell("index", index)), backend)


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("index", "007"), ("index", "1e3"), ("index", "NaN"), ("A", "1.10"), ("B", "007"), ("question", "1e5"), ("A", "+5"),
        ("A", "True "),
    ],
)  # fmt: skip
def test_a_cell_that_vlmevalkit_reads_as_another_is_refused(tmp_path: Path, column: str, text: str) -> None:
    rows = [[*with_cell(column, text, 0)[0]], [*with_cell(column, f"{text}", 1)[1]]]
    if column == "index":
        rows[0][0] = "5"
    if text.strip() == "True":
        rows = with_cell("A", "True")
        rows[0][2] = "TRUE"
    message = refusal(table(tmp_path / "t.tsv", rows))
    assert column in message


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (("index", "question", "A", "A", "answer", "image"), "column 'A' found twice"),
        (("index", "question", "A", "B ", "answer", "image"), "column 'B ' found; expected 'B'"),
        (("index", "question", "a", "b", "answer", "image"), "column 'a' found; expected 'A'"),
        (("index", "question", "image_path", "A", "answer", "image"), "column 'image_path' found"),
    ],
)
def test_a_column_that_would_be_lost_or_misread_is_refused(
    tmp_path: Path, columns: tuple[str, ...], words: str
) -> None:
    rows = [["0", "Which?", "one", "two", "A", picture("7")]]
    if "image_path" in columns:
        rows = [["0", "Which?", "/data/a.jpg", "two", "A", picture("7")]]
    with pytest.raises(UserError, match=words):
        read_own_table(table(tmp_path / "t.tsv", rows, columns), "native")


@pytest.mark.parametrize("backend", NAMES)
def test_a_quote_that_nobody_closed_does_not_swallow_questions(tmp_path: Path, backend: str) -> None:
    rows = [
        [str(n), '"Foo' if n == 0 else 'Bar" x' if n == 2 else "Which?", "one", "two", "A", picture("7")]
        for n in range(4)
    ]
    path = table(tmp_path / "t.tsv", rows)
    with pytest.raises(UserError, match=r"quote|not a TSV"):
        read_own_table(path, backend)


@pytest.mark.parametrize("backend", NAMES)
@pytest.mark.parametrize(
    ("text", "words"), [("", "its question is empty"), (" ", "its question is empty"), ("a\x00b", "holds")]
)
def test_an_empty_question_or_a_control_character_is_refused(
    tmp_path: Path, backend: str, text: str, words: str
) -> None:
    assert words in refusal(table(tmp_path / "t.tsv", with_cell("question", text)), backend)


def cut_picture() -> str:
    content = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(content, "PNG")
    return base64.b64encode(content.getvalue()[:900]).decode()


@pytest.mark.parametrize("backend", NAMES)
@pytest.mark.parametrize("content", [base64.b64encode(b"<html>404</html>" * 9).decode(), cut_picture()])
def test_a_picture_that_cannot_be_read_whole_is_refused_with_its_question(
    tmp_path: Path, backend: str, content: str
) -> None:
    assert "question 1: its picture cannot be read" in refusal(
        table(tmp_path / "t.tsv", with_cell("image", content)), backend
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (with_cell("answer", "C"), "the answer of question 1 is 'C'"),
        (with_cell("answer", ""), "the answer of question 1 is ''"),
        ([ROWS[0], ["1", "Who?", "", "", "Ada", picture("8")]], "question 0 has options and question 1 has none"),
        ([["0", "Who?", "", "", "[]", picture("8")]], "the answer of question 0 is '[]'"),
        ([["0", "Who?", "", "", "", picture("8")]], "the answer of question 0 is ''"),
    ],
)
def test_an_answer_that_can_never_be_right_is_refused_for_the_native_backend(
    tmp_path: Path, rows: list[list[str]], words: str
) -> None:
    assert words in refusal(table(tmp_path / "t.tsv", list(rows)), "native")


@pytest.mark.parametrize("backend", NAMES)
def test_an_option_that_stands_there_twice_is_refused(tmp_path: Path, backend: str) -> None:
    """Each would be right, and one of them counts."""
    rows = with_cell("A", f" {ROWS[1][COLUMNS.index('B')]}")
    assert "question 1: options" in refusal(table(tmp_path / "t.tsv", rows), backend)


def test_every_question_with_a_fault_is_named_at_once(tmp_path: Path) -> None:
    rows = [[str(number), *ROWS[0][1:]] for number in range(4)]
    for number in (1, 3):
        rows[number][COLUMNS.index("answer")] = "E"
    with pytest.raises(UserError) as caught:
        read_own_table(table(tmp_path / "t.tsv", rows), "native")
    first, second = str(caught.value).splitlines()
    assert "the answer of question 1 is 'E'" in first and "the answer of question 3 is 'E'" in second


@pytest.mark.parametrize("token", ["<|image_pad|>", "<|im_end|>", "<image>", "<|endoftext|>"])
@pytest.mark.parametrize("column", ["question", "A"])
def test_a_token_of_the_model_in_a_text_is_refused_by_question_and_column(
    tmp_path: Path, token: str, column: str
) -> None:
    """The server would look for a picture there, and refuse the question."""
    said = refusal(table(tmp_path / "t.tsv", with_cell(column, f"what is {token}?")))
    assert f"question 1: {column} holds {token}, a token of the model" in said


def test_places_in_a_picture_may_be_named(tmp_path: Path) -> None:
    text = "What is in <|box_start|>(1,2),(3,4)<|box_end|>, as in <image 1>?"
    assert len(read_own_table(table(tmp_path / "t.tsv", with_cell("question", text)), "native")) == len(ROWS)


def test_options_under_other_names_are_no_open_question(tmp_path: Path) -> None:
    columns = ("index", "question", "option_a", "option_b", "answer", "image")
    assert "each answer is a letter, but there are no options" in refusal(
        table(tmp_path / "t.tsv", columns=columns), "native"
    )


def test_open_questions_for_vlmevalkit_are_refused_with_the_way_out(tmp_path: Path) -> None:
    columns, rows = ("index", "question", "answer", "image"), [["0", "Who?", "Ada", picture("7")]]
    assert "VLMEvalKit asks choices only" in refusal(table(tmp_path / "t.tsv", rows, columns))


def test_a_broken_list_of_answers_is_no_answer(tmp_path: Path) -> None:
    columns, rows = ("index", "question", "answer", "image"), [["0", "Who?", "['Ada', Lovelace", picture("7")]]
    assert "expected a text, or a list of the accepted ones" in refusal(
        table(tmp_path / "t.tsv", rows, columns), "native"
    )


@pytest.mark.parametrize("name", ["A", "a"])
def test_a_column_that_stands_twice_or_small_is_named_before_any_answer(tmp_path: Path, name: str) -> None:
    columns = ("index", "question", "A" if name == "A" else "b", name, "answer", "image")
    assert f"column '{columns[2] if name == 'a' else 'A'}' found" in refusal(table(tmp_path / "t.tsv", columns=columns))
