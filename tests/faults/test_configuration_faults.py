"""A file of a configuration that Snakemake itself would read first ends in one line with its name, and never in a traceback."""

import os
import subprocess
from pathlib import Path

import pytest


def planned(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{root / '.venv/bin'}:{os.environ['PATH']}"}
    command = ["snakemake", "--dry-run", "--cores", "1", "--configfile", "config/demo.yaml", *arguments]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"seed: 1\n---\nseed: 2\n", "2 documents found"),
        (b"stage1:\n\tflags: {}\n", "line 2: found character '\\t' that cannot start any token"),
        (b"", "0 documents found"),
        (b"- seed\n", "list found"),
        (b"seed\n", "str found"),
        (b"seed: !!python/object/apply:os.system [ls]\n", "line 1: could not determine a constructor for the tag"),
        (b"seed: \xff\n", "'utf-8' codec can't decode byte 0xff"),
        (b"seed: [1\n", "line 2: "),
        (b"[" * 5000, "recursion"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(root: Path, tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "overlay.yaml"
    path.write_bytes(content)
    finished = planned(root, str(path))
    *_, line = finished.stderr.splitlines()
    assert finished.returncode == 1 and "Traceback" not in finished.stderr
    assert line.startswith(f"error: {path}: ") and expected in line
    assert line.endswith("; expected a configuration: one YAML or JSON document of keys; correct it")


def test_a_file_that_is_not_there_or_none_is_named(root: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for path, expected in (
        (tmp_path / "none.yaml", "not found"),
        (tmp_path, "no file"),
        (tmp_path / "pipe.yaml", "no file"),
    ):
        finished = planned(root, f"--configfile={path}")
        assert finished.returncode == 1
        assert finished.stderr.splitlines()[-1].startswith(f"error: {path}: {expected}; expected a configuration")


def test_json_with_tabs_and_several_overlays_are_configurations(root: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{\n\t"seed": 7\n}')
    (tmp_path / "b.yaml").write_text("seed: 8\n")
    assert planned(root, str(tmp_path / "a.json"), str(tmp_path / "b.yaml")).returncode == 0


def test_a_file_of_ones_own_that_is_not_there_is_named_where_an_earlier_run_has_left_results(
    root: Path, tmp_path: Path
) -> None:
    """Snakemake would take the results of the earlier files for those of the present ones."""
    rows = tmp_path / "rows.jsonl"
    (tmp_path / "overlay.yaml").write_text(f"stage1: {{datasets: [{rows}]}}\n")
    rows.touch()
    assert planned(root, str(tmp_path / "overlay.yaml")).returncode == 0
    rows.unlink()
    finished = planned(root, str(tmp_path / "overlay.yaml"))
    assert finished.returncode == 1
    assert (
        f"stage1.datasets[0]: {rows} not found; expected training rows; check the path"
        in finished.stdout + finished.stderr
    )


def test_a_picture_that_a_list_names_and_that_is_not_there_is_left_to_the_program(root: Path, tmp_path: Path) -> None:
    """It names the list and the line; Snakemake would name the picture alone."""
    line = '{"question": "Which?", "images": ["no.png"], "options": ["1", "2"], "answer": "A"}\n'
    (tmp_path / "list.jsonl").write_text(line)
    (tmp_path / "overlay.yaml").write_text(f"evaluate: {{benchmarks: [{{mine: {tmp_path}/list.jsonl}}]}}\n")
    finished = planned(root, str(tmp_path / "overlay.yaml"))
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.parametrize("word", ["seed", "=5"])
def test_a_setting_without_key_or_value_is_named(root: Path, word: str) -> None:
    finished = planned(root, "--config", word)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1].endswith("found; expected KEY=VALUE; correct it")


def test_settings_are_taken_as_they_are(root: Path) -> None:
    assert planned(root, "--config", "seed=5", "results=results/mine").returncode == 0
