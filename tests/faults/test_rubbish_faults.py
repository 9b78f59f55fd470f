"""Rubbish in the place of every file that a user or a hub brings: one line that names it, no hang, nothing left behind."""

import json
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pytest

from helpers.report_inputs import COMMIT, LAYOUT, build, png
from helpers.rubbish import NO_FILE, NO_JSON, NO_SECTION, NO_TEXT, put
from helpers.tiny_donor_files import write_tiny_donors
from helpers.tiny_graft import SECTION
from scripts.common.errors import UserError, run_program
from scripts.common.root import ROOT
from scripts.data import check_dataset, prepare_dataset
from scripts.donors import fetch_donor
from scripts.graft import derive_config, graft
from scripts.graft.own_code import CODE_DIR
from scripts.questions import tabulate_benchmark
from scripts.report.make_report import make
from scripts.train import train
from scripts.workflow.read_configuration import read_configuration

LIMIT_S = 120
TEXTS = {"messages": [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "That."}]}


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """A program that waits for ever, as for a pipe, fails its test."""

    def fail(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"still running after {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two donors, a picture, a list of questions, a configuration."""
    directory = tmp_path_factory.mktemp("sound")
    write_tiny_donors(directory, num_shards=2, dtype="float32")
    (directory / "a.png").write_bytes(png(7))
    question = {"question": "Which?", "images": ["a.png"], "options": ["1", "7"], "answer": "B"}
    (directory / "list.jsonl").write_text(json.dumps(question) + "\n")
    shutil.copy(ROOT / "config/demo.yaml", directory / "mine.yaml")
    return directory


@pytest.fixture
def place(sound: Path, tmp_path: Path) -> Path:
    """A copy of them with rows for training: everything that the programs below read."""
    place = tmp_path / "place"
    shutil.copytree(sound, place)
    (place / "rows.jsonl").write_text(json.dumps({**TEXTS, "images": [str(place / "a.png")]}) + "\n")
    return place


@dataclass(frozen=True)
class Program:
    """A program, and the arguments with which it reads a place and writes an output."""

    main: Callable[[], object]
    arguments: Callable[[Path, Path], list[str | Path]]


def _fetch(role: str) -> Program:
    def arguments(place: Path, output: Path) -> list[str | Path]:
        source = json.dumps({"kind": "local", "path": str(place / role)})
        return ["--role", role, "--source", source, "--dir", place / role, "--manifest", output]

    return Program(fetch_donor.main, arguments)


def _donors(place: Path) -> list[str | Path]:
    return ["--vl-dir", place / "vl", "--llm-dir", place / "llm", "--settings", json.dumps(SECTION)]


def _graft(place: Path, output: Path) -> list[str | Path]:
    model = ["--model-config", place / "config.json", "--model-code-dir", CODE_DIR]
    return [*_donors(place), *model, "--seed", "0", "--output-dir", output]


def _train(place: Path, output: Path) -> list[str | Path]:
    section = read_configuration(ROOT / "config/demo.yaml")["stage1"]
    inputs = ["--model-dir", place / "vl", "--dataset", place / "rows.jsonl", "--settings", json.dumps(section)]
    python = ["--train-python", ROOT / ".venvs/train/bin/python"]
    outputs = ["--work-dir", output.parent / "work", "--output-dir", output, "--log", output.parent / "log.log"]
    return ["--stage", "stage1", *inputs, *python, *outputs, "--seed", "0"]


PROGRAMS = {
    "train": Program(train.main, _train),
    "fetch vl": _fetch("vl"),
    "fetch llm": _fetch("llm"),
    "derive": Program(derive_config.main, lambda place, output: [*_donors(place), "--output", output]),
    "graft": Program(graft.main, _graft),
    "prepare": Program(
        prepare_dataset.main,
        lambda place, output: ["--sources", json.dumps([str(place / "rows.jsonl")]), "--seed", "0", "--output", output],
    ),
    "check": Program(check_dataset.main, lambda place, output: ["--dataset", place / "rows.jsonl", "--output", output]),
    "tabulate": Program(
        tabulate_benchmark.main,
        lambda place, output: ["--source", place / "list.jsonl", "--backend", "native", "--output", output],
    ),
    "read": Program(lambda: read_configuration(Path(sys.argv[1])), lambda place, output: [place / "mine.yaml"]),
}

SECTIONS = [
    ("fetch llm", "llm/config.json"), ("fetch llm", "llm/model.safetensors.index.json"), ("derive", "vl/config.json"),
    ("derive", "llm/config.json"), ("derive", "llm/tokenizer.json"), ("graft", "llm/generation_config.json"),
    ("graft", "llm/tokenizer_config.json"), ("graft", "vl/preprocessor_config.json"), ("graft", "config.json"),
    ("train", "vl/config.json"), ("prepare", "rows.jsonl"), ("check", "rows.jsonl"), ("tabulate", "list.jsonl"),
    ("read", "mine.yaml"),
]  # fmt: skip
OTHERS = [
    ("fetch vl", "vl/model-00001-of-00002.safetensors"), ("fetch llm", "llm/added.txt"), ("graft", "vl/chat_template.jinja"),
    ("check", "a.png"), ("tabulate", "a.png"), ("train", "rows.jsonl"), ("train", "vl/model-00001-of-00002.safetensors"),
    ("train", "vl/tokenizer.json"),
]  # fmt: skip
CASES = [
    *((program, name, kind) for program, name in SECTIONS for kind in (*NO_FILE, *NO_TEXT, *NO_JSON, *NO_SECTION)),
    *((program, name, kind) for program, name in OTHERS for kind in NO_FILE),
]


def run(program: str, place: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `python scripts PROGRAM …` does."""
    chosen = PROGRAMS[program]
    monkeypatch.setattr(sys, "argv", ["x", *map(str, chosen.arguments(place, output))])
    run_program(lambda: chosen.main() and None)


@pytest.mark.parametrize(("program", "name", "kind"), CASES)
def test_rubbish_in_the_place_of_a_file_is_refused_by_its_name(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], program: str, name: str, kind: str
) -> None:
    if program == "graft":
        run("derive", place, place / "config.json", monkeypatch)
    put(kind, place / name)
    before = sorted(place.rglob("*"))
    output = place.parent / "output" / "made"
    with pytest.raises(SystemExit) as ended:
        run(program, place, output, monkeypatch)
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert ended.value.code == 1 and len(lines) == 1
    said = error[error.index("error: ") :]
    # What was read is named by its key: a configuration may be of several files.
    assert (name in said or (program == "read" and "\n  a: " in said)) and "Traceback" not in error
    assert sorted(place.rglob("*")) == before
    assert not [path for path in output.parent.rglob("*") if path.is_file() and not path.name.endswith(".lock")]


@pytest.mark.parametrize("program", sorted(PROGRAMS.keys() - {"train"}))
def test_what_is_sound_is_taken(place: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    if program == "graft":
        run("derive", place, place / "config.json", monkeypatch)
    run(program, place, place.parent / "made", monkeypatch)
    assert (place.parent / "made").exists() or program == "read"


@pytest.mark.parametrize(
    ("program", "name"),
    [
        ("prepare", "rows.jsonl"),
        ("check", "rows.jsonl"),
        ("tabulate", "list.jsonl"),
        ("derive", "llm/config.json"),
        ("derive", "vl/tokenizer.json"),
    ],
)
def test_a_file_of_the_users_is_never_written_over(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], program: str, name: str
) -> None:
    before = (place / name).read_bytes()
    with pytest.raises(SystemExit):
        run(program, place, place / name, monkeypatch)
    error = capsys.readouterr().err
    assert f"{name}: found as an input and as an output" in error or f"{name}: lies in the donor" in error
    assert (place / name).read_bytes() == before


SEALED = (LAYOUT.metrics("stage1"), LAYOUT.fidelity, LAYOUT.scores_provenance("digits"), LAYOUT.donor_manifest("vl"))


@pytest.mark.parametrize("kind", [*NO_FILE, *NO_TEXT, *NO_JSON, *NO_SECTION])
@pytest.mark.parametrize("name", [*SEALED, LAYOUT.records("digits", "graft"), LAYOUT.scores("digits"), LAYOUT.ledger])
def test_rubbish_in_the_place_of_a_result_makes_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    inputs = build(Path(), num_questions=20)
    put(kind, inputs.path(name))
    before = sorted(Path().rglob("*"))
    with pytest.raises(UserError, match=re.escape(str(inputs.path(name)))):
        make(Path(LAYOUT.effective_config), inputs.output, Path(LAYOUT.curves_dir), COMMIT)
    assert sorted(Path().rglob("*")) == before
