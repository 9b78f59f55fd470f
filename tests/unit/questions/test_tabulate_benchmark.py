"""A list of one's own questions becomes a table, or is refused by the number of the line and its key."""

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest
from PIL import Image

from helpers.evaluation_inputs import picture
from scripts.common.errors import UserError
from scripts.questions import tabulate_benchmark
from scripts.questions.native_samples import accepted_answers, letters_of
from scripts.questions.pictures import pictures_of
from scripts.questions.tables import questions_of, read_benchmark, write_benchmark
from scripts.questions.tabulate_benchmark import picture_text

CHOICE = {"question": "Which digit?", "images": ["p/7.png"], "options": ["1", "7"], "answer": "B"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "p").mkdir()
    for name in ("7", "8"):
        (tmp_path / f"p/{name}.png").write_bytes(base64.b64decode(picture(name)))
    (tmp_path / "p/text.png").write_text("no picture")
    (tmp_path / "p/cut.png").write_bytes(base64.b64decode(picture("7"))[:40])
    return tmp_path


def tabulate(directory: Path, monkeypatch: pytest.MonkeyPatch, *lines: Any) -> list[dict[str, str]]:
    """The rows of the table that is made of these lines; a text is a line as it is."""
    list_path, output_path = directory / "q.jsonl", directory / "q.tsv"
    list_path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    monkeypatch.setattr(
        sys, "argv", ["x", "--source", str(list_path), "--backend", "native", "--output", str(output_path)]
    )
    tabulate_benchmark.main()
    return read_benchmark(output_path).to_dict("records")


def test_a_choice_has_a_letter_for_each_option_and_its_own_or_its_lines_index(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {**CHOICE, "index": "seven", "options": ["1", "2", "7"], "answer": "C"}
    named |= {"category": "odd", "discipline": "digits", "split": "dev"}
    first, second = tabulate(directory, monkeypatch, CHOICE, "", named)
    assert (first["index"], first["A"], first["B"], first["C"], first["answer"]) == ("0", "1", "7", "", "B")
    assert (second["index"], second["C"], second["answer"]) == ("seven", "7", "C")
    table = read_benchmark(directory / "q.tsv")
    question = questions_of(table, pictures_of(table, directory / "q.tsv"))[1]
    assert (question.split, question.discipline, question.subject) == ("dev", "digits", "odd")


def test_an_open_question_has_one_accepted_answer_or_several(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted = ["Ada Lovelace", 'the "first"', "back\\slash", "Zoë’s"]
    base = {"question": "Who?", "images": ["p/7.png"]}
    rows = tabulate(directory, monkeypatch, {**base, "answer": accepted}, {**base, "answer": "one"})
    assert [accepted_answers(row["answer"]) for row in rows] == [accepted, ["one"]]
    assert [letters_of(row) for row in rows] == [[], []]


def test_the_table_reads_back_the_same(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'A "quoted"\ttab,\na second line\u2028and: None'
    both = {**CHOICE, "question": text, "images": ["p/8.png", "p/7.png"], "options": ["NA", "1.0"], "index": 5}
    rows = tabulate(directory, monkeypatch, both, CHOICE)
    assert (rows[0]["question"], rows[0]["A"], rows[0]["B"], rows[0]["index"]) == (text, "NA", "1.0", "5")
    shown = pictures_of(read_benchmark(directory / "q.tsv"), directory / "q.tsv")
    expected = [[(directory / f"p/{name}.png").read_bytes() for name in names] for names in ("87", "7")]
    assert [[base64.b64decode(each) for each in pictures] for pictures in shown] == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({**CHOICE, "images": ["p/9.png"]}, r"line 2: picture not found: .*p/9\.png; .*paths are relative to the list"),
        ({**CHOICE, "images": ["p/text.png"]}, r"line 2: picture unreadable: .*p/text\.png \(UnidentifiedImageError"),
        ({**CHOICE, "images": ["p/cut.png"]}, r"line 2: picture unreadable: .*p/cut\.png \("),
        ({**CHOICE, "images": "p/7.png"}, "line 2: images is 'p/7.png'; expected a list of paths"),
        ({**CHOICE, "images": []}, "line 2: images is missing or empty"),
        ({**CHOICE, "answer": "C"}, "line 2: answer is 'C'; expected the letter of an option, one of A, B"),
        ({**CHOICE, "answer": "7"}, "line 2: answer is '7'; expected the letter"),
        ({**CHOICE, "answer": 0}, "line 2: answer is 0; expected the letter of an option, one of A, B"),
        ({**CHOICE, "options": None}, "line 2: options is None; expected a list"),
        ({**CHOICE, "options": ["1", ""]}, "line 2: options is .*; expected a list"),
        ({**CHOICE, "options": []}, "line 2: no options found, other than in line 1; expected choices alone or open"),
        ({**CHOICE, "options": [], "answer": 7}, "line 2: answer is 7; expected a text, or a list"),
        ({**CHOICE, "colour": "red"}, "line 2: unknown key 'colour'; expected of question"),
        ({key: CHOICE[key] for key in ("images", "answer")}, "line 2: question is missing or empty"),
        ([CHOICE], "line 2: list found; expected a JSON object"),
        ("{'question': 1}", "line 2 is no JSON"),
        (json.dumps(CHOICE)[:-3], "line 2 is no JSON"),
        ({**CHOICE, "index": "0"}, "line 2: index is '0', as in line 1; expected each index once"),
        ({**CHOICE, "index": 0}, "line 2: index is '0', as in line 1; expected each index once"),
        ({**CHOICE, "index": 1.5}, "line 2: index is 1.5; expected a text"),
        ({**CHOICE, "index": {"a": 1}}, "line 2: index is {'a': 1}; expected a text"),
        ({**CHOICE, "question": ["a"]}, r"line 2: question is \['a'\]; expected a text"),
        ({**CHOICE, "question": True}, "line 2: question is True; expected a text"),
        ({**CHOICE, "category": None}, "line 2: category is None; expected a text"),
        ({**CHOICE, "options": ["1", 1]}, r"line 2: options is \['1', 1\]; expected each option once"),
        ({**CHOICE, "options": ["1", ["7"]]}, r"line 2: options is \['1', \['7'\]\]; expected a list"),
        ({**CHOICE, "options": ["1", " "]}, "line 2: options is .*; expected a list"),
        ({**CHOICE, "question": "a\rb"}, "question of question 1 does not survive a table"),
        ({**CHOICE, "images": ["p/" + "7" * 300]}, r"line 2: picture not found: .*\(cannot be reached"),
        ({**CHOICE, "images": ["p/\0"]}, r"line 2: picture not found: .*\(has a name that no file can have"),
        ('{"question": "\\ud800"}', "line 2 is no JSON \\(half a character"),
    ],
)
def test_a_line_that_cannot_be_asked_is_named(
    directory: Path, monkeypatch: pytest.MonkeyPatch, line: Any, expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        tabulate(directory, monkeypatch, CHOICE, line)
    assert not (directory / "q.tsv").exists()


def test_every_line_that_cannot_be_asked_is_named_at_once(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [{**CHOICE, "answer": "F"}, "{", {**CHOICE, "images": ["no.png"]}, {**CHOICE, "colour": 1}]
    with pytest.raises(UserError) as caught:
        tabulate(directory, monkeypatch, CHOICE, *wrong)
    assert [line.partition("q.jsonl: ")[2][:6] for line in str(caught.value).splitlines()] == [
        f"line {number}" for number in (2, 3, 4, 5)
    ]


@pytest.mark.parametrize("lines", [(), ("", "  ")])
def test_an_empty_list_is_refused(directory: Path, monkeypatch: pytest.MonkeyPatch, lines: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"q\.jsonl: no questions found"):
        tabulate(directory, monkeypatch, *lines)
    assert not (directory / "q.tsv").exists()


def test_an_absent_list_is_named(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys,
        "argv",
        ["x", "--source", str(directory / "no.jsonl"), "--backend", "native", "--output", str(directory / "q.tsv")],
    )
    with pytest.raises(UserError, match=r"no\.jsonl: not found"):
        tabulate_benchmark.main()


def test_pictures_are_shown_as_a_person_sees_them(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 3), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGB", (4, 3), "red").save(tmp_path / "plain.png")
    shown = [base64.b64decode(picture_text(tmp_path / name, "line 1")) for name in ("clear.png", "plain.png")]
    with Image.open(io.BytesIO(shown[0])) as picture:
        assert (picture.mode, picture.getpixel((0, 0))) == ("RGB", (255, 255, 255))
    assert shown[1] == (tmp_path / "plain.png").read_bytes()


def test_a_table_is_asked_as_it_stands_with_pictures_as_a_person_sees_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clear = io.BytesIO()
    Image.new("RGBA", (120, 120), (0, 0, 0, 0)).save(clear, "PNG")
    plain, transparent = picture("7"), base64.b64encode(clear.getvalue()).decode()
    rows = [
        {"index": "0", "question": "Which?", "A": "one", "B": "two", "answer": "A", "image": plain},
        {"index": "1", "question": "And?", "A": "one", "B": "two", "answer": "B", "image": repr([plain, transparent])},
        {"index": "2", "question": "Again?", "A": "one", "B": "two", "answer": "B", "image": "0"},
    ]
    path, output_path = tmp_path / "mine.tsv", tmp_path / "out/mine.tsv"
    write_benchmark(pandas.DataFrame(rows), path)
    given = path.read_bytes()
    monkeypatch.setattr(
        sys, "argv", ["x", "--source", str(path), "--backend", "vlmevalkit", "--output", str(output_path)]
    )
    tabulate_benchmark.main()
    table = read_benchmark(output_path)
    assert table.drop(columns="image").to_dict("records") == [
        {key: value for key, value in row.items() if key != "image"} for row in rows
    ]
    first, second, third = pictures_of(table, output_path)
    assert first == third == [plain] and second[0] == plain
    assert Image.open(io.BytesIO(base64.b64decode(second[1]))).getpixel((0, 0)) == (255, 255, 255)
    assert "question 1: laid on white" in capsys.readouterr().err
    assert path.read_bytes() == given


def test_a_table_that_cannot_be_asked_is_refused_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"index": "0", "question": "Which?", "A": "1.10", "B": "2.20", "answer": "A", "image": picture("7")}
    write_benchmark(pandas.DataFrame([row]), tmp_path / "mine.tsv")
    arguments = [
        "--source",
        str(tmp_path / "mine.tsv"),
        "--backend",
        "vlmevalkit",
        "--output",
        str(tmp_path / "out.tsv"),
    ]
    monkeypatch.setattr(sys, "argv", ["x", *arguments])
    with pytest.raises(
        UserError, match=r"mine\.tsv: A of question 0 is '1\.10', which VLMEvalKit would read as '1\.1'"
    ):
        tabulate_benchmark.main()
    assert not (tmp_path / "out.tsv").exists()
