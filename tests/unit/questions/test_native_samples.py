"""Samples of EvalScope's native backend: of one's own rows, through a table and back, and what becomes of their answers."""

import base64
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from helpers.evaluation_inputs import benchmark_rows, picture, write_rows
from scripts.common.errors import UserError
from scripts.evaluate.run_native import FINISH_REASONS, adapter_of, require_content, stop_reason_of
from scripts.questions.native_samples import OWN_CHOICE_ADAPTER, OWN_OPEN_ADAPTER, accepted_answers, data_url, row_of


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    rows = benchmark_rows(2)
    rows[1]["image"] = repr([picture("first"), picture("second")])
    rows[1]["question"] = "Which {digit}?"
    rows[1] |= {"C": "", "D": ""}
    return rows


@pytest.fixture(scope="module")
def found(
    root: Path, evaluate_python: Path, rows: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What EvalScope's objects are, told by the environment that has it: its import takes 20 s."""
    directory = tmp_path_factory.mktemp("native")
    choice_path = write_rows(rows, directory / "choices.tsv")
    open_rows = [{**rows[0], "answer": json.dumps(["7", "seven"])}]
    open_path = write_rows(open_rows, directory / "open.tsv", ("index", "image", "question", "answer"))
    command = [evaluate_python, "tests/helpers/objects_by_evalscope.py", directory, choice_path, open_path]
    environment = {**os.environ, "PYTHONPATH": ".", "no_proxy": "127.0.0.1", "HF_HUB_OFFLINE": "1"}
    finished = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return dict(json.loads(finished.stdout.splitlines()[-1]))


def parts(sample: dict[str, Any]) -> list[tuple[str, str]]:
    (message,) = sample["input"]
    assert message["role"] == "user"
    return [(part["type"], part[part["type"]]) for part in message["content"]]


def test_a_choice_of_ones_own_is_asked_by_the_prompt_of_the_settings_after_its_pictures(
    found: dict[str, Any], rows: list[dict[str, str]]
) -> None:
    (index, _, first), (_, _, second) = found["choices"]
    assert index == "0"
    options = "\n".join(f"{letter}. {rows[0][letter]}" for letter in "ABCD")
    assert parts(first) == [
        ("image", f"data:image/png;base64,{rows[0]['image']}"),
        ("text", f"Q: Which digit?\n{options}\nOne of A,B,C,D; {{braces}}."),
    ]
    assert (first["choices"], first["target"]) == ([rows[0][letter] for letter in "ABCD"], rows[0]["answer"])
    assert [kind for kind, _ in parts(second)] == ["image", "image", "text"]
    assert parts(second)[-1][1].startswith("Q: Which {digit}?") and "One of A,B;" in parts(second)[-1][1]


def test_an_open_question_of_ones_own_has_all_accepted_answers(found: dict[str, Any]) -> None:
    ((_, _, sample),) = found["open"]
    assert parts(sample)[-1] == ("text", "Which digit? Say it.")
    assert "choices" not in sample
    assert json.loads(sample["target"]) == ["7", "seven"]


def test_the_blind_control_leaves_the_pictures_out_and_changes_no_text(found: dict[str, Any]) -> None:
    for (_, _, seen), (_, _, blind) in zip(found["choices"], found["blind choices"], strict=True):
        assert parts(blind) == [part for part in parts(seen) if part[0] == "text"]
    assert found["blind kinds"] == [["text"], ["text", "text", "text"]]
    assert "Look: " in found["blind text"]


def test_a_sample_comes_back_from_a_table_as_it_was(found: dict[str, Any]) -> None:
    assert found["same"] == [True, True, True]


def test_an_answer_is_kept_with_why_it_ended(found: dict[str, Any]) -> None:
    answers = found["answers"]
    assert (answers["whole"], answers["cut"], answers["empty"]) == ("B|stop", "B or|length", "|stop")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("null", "content is null"),
        ("too long", "the server refused it: model_length: maximum context length exceeded"),
        ("wrong", "no such parameter"),
        ("filtered", "the server refused it: content_filter"),
        ("no choices", "the server refused it: no choices"),
    ],
)
def test_what_evalscope_would_take_for_an_answer_is_a_failure(found: dict[str, Any], reply: str, reason: str) -> None:
    assert re.search(reason, found["answers"][reply]), found["answers"][reply]


def test_content_of_null_is_refused_and_an_empty_one_is_not() -> None:
    def response(content: str | None) -> dict[str, Any]:
        return {"choices": [{"message": {"content": "B"}}, {"message": {"content": content}}]}

    require_content(response(""))
    require_content({"choices": None})
    with pytest.raises(ValueError, match="content is null"):
        require_content(response(None))


def test_reasons_that_an_answer_ended_translate_back_to_themselves() -> None:
    assert [stop_reason_of(theirs) for theirs in FINISH_REASONS.values()] == list(FINISH_REASONS)


def test_choices_and_open_questions_in_one_table_are_refused_by_an_example_of_each(tmp_path: Path) -> None:
    choice, open_ = {"index": "3", "A": "1", "B": "2"}, {"index": "5", "A": "", "B": ""}
    assert adapter_of("mine", [choice], tmp_path) == OWN_CHOICE_ADAPTER
    assert adapter_of("mine", [open_], tmp_path) == OWN_OPEN_ADAPTER
    assert adapter_of("mmmu", [{"index": "0", "sample": "{}"}], tmp_path) == "mmmu"
    with pytest.raises(UserError, match="question 3 has options and question 5 has none"):
        adapter_of("mine", [open_, choice], tmp_path)


@pytest.mark.parametrize(
    "part",
    [{"type": "image", "image": "https://elsewhere/a.png"}, {"type": "video", "video": "data:video/mp4;base64,"}],
)
def test_what_a_table_cannot_hold_is_refused_by_its_question(part: dict[str, str]) -> None:
    class Sample:
        choices = None
        target = "A"

        def model_dump_json(self, exclude_none: bool) -> str:
            return json.dumps({"input": [{"role": "user", "content": [part]}]})

    with pytest.raises(UserError, match=f"question val/4: {part['type']} that is not given as bytes"):
        row_of("val/4", "val", "test", Sample())


@pytest.mark.parametrize(
    ("field", "accepted"),
    [
        ("seven", ["seven"]),
        ('["7", "seven"]', ["7", "seven"]),
        ("['7', \"it's\"]", ["7", "it's"]),
        ("[unclear]", ["[unclear]"]),
        ("[", ["["]),
    ],
)
def test_an_open_answer_is_a_list_or_the_text_itself(field: str, accepted: list[str]) -> None:
    assert accepted_answers(field) == accepted


def test_a_picture_is_sent_as_what_it_is() -> None:
    for start, kind in ((b"\x89PNG\r\n", "png"), (b"\xff\xd8\xff\xe0", "jpeg"), (b"GIF89a", "gif"), (b"RIFF", "webp")):
        encoded = base64.b64encode(start + b"." * 90).decode()
        assert data_url(encoded) == f"data:image/{kind};base64,{encoded}"
