"""What training would die of in mid-run is found before it, by training's own encoding, and named by the user's file and line."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.graft_run import make_graft
from scripts.data.dataset_check import read_dataset_check

pytest.importorskip("swift", reason="the train environment has it")

MAX_LENGTH = 200
ENCODING = {"environment": {"MAX_PIXELS": 3136}, "flags": {"max_length": MAX_LENGTH}}
ANSWER = {"role": "assistant", "content": "A."}


def row(question: str, answer: dict[str, Any] = ANSWER, **others: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, answer], **others}


SOUND = [row("<image>What?", images=["a.png"]), row("Why?"), row("<|box_start|>(1,2),(3,4)<|box_end|>?")]
# What is wrong, and how the row is refused.
BAD = {
    "longer than max_length": (row("too long " * MAX_LENGTH), f"tokens, max_length is {MAX_LENGTH}"),
    "a token of the model in the text": (row("What does <|image_pad|> mean?"), "message 1: '<|image_pad|>'"),
    "picture too thin for MAX_PIXELS": (row("<image>What?", images=["banner.png"]), "banner.png (500 x 100: "),
    "nothing would be trained": (row("Why?", {**ANSWER, "loss": False}), ""),
}  # fmt: skip


@dataclass(frozen=True)
class Files:
    """A user's rows, sound ones before and after the bad ones, and the model that they are for."""

    root: Path
    directory: Path
    model_dir: Path
    rows_path: Path

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "scripts", program, *arguments]
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True)

    def prepared(self, *settings: str) -> subprocess.CompletedProcess[str]:
        sources = ["--sources", json.dumps([str(self.rows_path)]), "--seed", "0", *settings]
        outputs = ["--output", f"{self.directory}/s.prepared.jsonl", "--origins", f"{self.directory}/s.origins.json"]
        return self.run("data.prepare_dataset", *sources, *outputs)

    def checked(self, *settings: str) -> subprocess.CompletedProcess[str]:
        inputs = ["--dataset", f"{self.directory}/s.prepared.jsonl", "--origins", f"{self.directory}/s.origins.json"]
        inputs += ["--model-dir", str(self.model_dir), "--encoding", json.dumps(ENCODING), *settings]
        outputs = ["--kept", f"{self.directory}/s.jsonl", "--output", f"{self.directory}/s.check.json"]
        return self.run("data.check_dataset", *inputs, *outputs)


@pytest.fixture(scope="module")
def files(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    directory = tmp_path_factory.mktemp("rows")
    model_dir, _ = make_graft(root, directory, "qwen3", "fresh", dtype="float32")
    Image.new("RGB", (60, 40), "red").save(directory / "a.png")
    Image.new("RGB", (500, 100), "red").save(directory / "banner.png")
    rows_path = directory / "rows.jsonl"
    rows = [*SOUND, *(bad for bad, _ in BAD.values()), *SOUND]
    # Empty lines between them: a row's number is not its line.
    rows_path.write_text("\n\n".join(map(json.dumps, rows)))
    return Files(root, directory, model_dir, rows_path)


def line_of(number: int) -> int:
    """The line of a row, counted from 0."""
    return 2 * number + 1


def test_every_row_that_training_would_fail_on_is_refused_with_its_file_line_and_reason(files: Files) -> None:
    assert files.prepared().returncode == 0
    finished = files.checked()
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    assert f"{len(BAD)} of {2 * len(SOUND) + len(BAD)} rows cannot be trained on" in finished.stderr
    for number, (kind, (_, detail)) in enumerate(BAD.items(), start=len(SOUND)):
        (line,) = (line for line in finished.stderr.splitlines() if f"rows.jsonl, line {line_of(number)}" in line)
        assert detail in line
        assert f"  {kind}: 1 (remedy: " in finished.stderr
    assert not (files.directory / "s.jsonl").exists()
    assert not (files.directory / "s.check.json").exists()


def test_bad_rows_are_dropped_and_listed_where_that_is_asked_for(files: Files) -> None:
    drop = ["--settings", json.dumps({"bad_rows": "drop", "max_dropped_fraction": 0.5, "ignored_keys": []})]
    assert files.prepared(*drop).returncode == 0
    finished = files.checked(*drop)
    assert finished.returncode == 0, finished.stderr
    kept = [json.loads(line)["messages"] for line in (files.directory / "s.jsonl").read_text().splitlines()]
    assert kept == [each["messages"] for each in [*SOUND, *SOUND]]
    check = read_dataset_check(files.directory / "s.check.json")
    assert (check.num_rows, check.num_dropped_rows, check.num_pictures) == (2 * len(SOUND), len(BAD), 1)
    assert [(row.file, row.line) for row in check.dropped] == [
        (str(files.rows_path), line_of(number)) for number in range(len(SOUND), len(SOUND) + len(BAD))
    ]
    assert [row.reason.partition(":")[0] for row in check.dropped] == list(BAD)
    assert check.tokens is not None
    assert sum(each.num_rows for each in check.tokens.lengths) == check.num_rows
    assert check.tokens.max_length == MAX_LENGTH


def test_more_bad_rows_than_may_be_dropped_refuse_the_dataset(files: Files) -> None:
    drop = ["--settings", json.dumps({"bad_rows": "drop", "max_dropped_fraction": 0.1, "ignored_keys": []})]
    assert files.prepared(*drop).returncode == 0
    (files.directory / "s.check.json").unlink(missing_ok=True)
    finished = files.checked(*drop)
    assert finished.returncode == 1
    assert "more than may be dropped (data.max_dropped_fraction is 0.1)" in finished.stderr
    assert not (files.directory / "s.check.json").exists()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"videos": ["a.mp4"]}, "key 'videos'"),
        ({"audios": ["a.wav"]}, "key 'audios'"),
        ({"rejected_response": "B."}, "key 'rejected_response'"),
        ({"id": "7"}, "key 'id'"),
        ({"label": 1}, "key 'label'"),
        ({"objects": {"ref": [], "bbox": [], "colour": "red"}}, "key 'objects.colour'"),
        ({"messages": [{"role": "user", "content": "?", "weight": 2}, ANSWER]}, "key 'messages[1].weight'"),
        ({"messages": [{"role": "user", "content": "?", "value": "!"}, ANSWER]}, "'content' and 'value' found"),
        ({"messages": [{"role": "judge", "content": "?"}, ANSWER]}, "messages: ms-swift cannot read it"),
        ({"messages": []}, "no messages found in its keys ('messages')"),
    ],
)
def test_what_ms_swift_would_drop_is_refused_by_the_name_of_its_key(files: Files, values: Any, words: str) -> None:
    path = files.directory / "own.jsonl"
    path.write_text(json.dumps(row("Why?")) + "\n" + json.dumps({**row("Why?"), **values}) + "\n")
    finished = prepare_in_process(path)
    assert f"{path}, line 2: " in finished
    assert words in finished


def prepare_in_process(path: Path) -> str:
    """The error of the preparation, whose import of ms-swift takes ten seconds in a program of its own."""
    from scripts.common.errors import UserError
    from scripts.data.prepare_dataset import prepare
    from scripts.data.settings import REFUSE_ALL
    from scripts.data.sources import parse_source

    with pytest.raises(UserError) as caught:
        prepare([parse_source(str(path))], 0, REFUSE_ALL, path.with_suffix(".out"), path.with_suffix(".pictures"))
    return str(caught.value)


def test_a_key_that_is_named_in_the_configuration_is_ignored(files: Files) -> None:
    path = files.directory / "ids.jsonl"
    path.write_text(json.dumps({**row("Why?"), "id": "7", "source": "web"}) + "\n")
    settings = json.dumps({"bad_rows": "refuse", "max_dropped_fraction": 0.0, "ignored_keys": ["id", "source"]})
    outputs = ["--output", f"{files.directory}/ids.out.jsonl", "--settings", settings]
    finished = files.run("data.prepare_dataset", "--sources", json.dumps([str(path)]), "--seed", "0", *outputs)
    assert finished.returncode == 0, finished.stderr
    assert json.loads((files.directory / "ids.out.jsonl").read_text()) == row("Why?")


def test_the_flags_that_check_rows_anew_are_those_of_ms_swifts_template() -> None:
    from dataclasses import fields

    from swift.arguments.base_args.template_args import TemplateArguments

    from scripts.data.settings import TEMPLATE_FLAGS

    elsewhere = {"template", "sequence_parallel_size", "template_backend"}
    assert {field.name for field in fields(TemplateArguments)} - elsewhere == TEMPLATE_FLAGS
