"""Paths that Snakemake would change, and places where results would destroy something."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from scripts.workflow.layout import Layout
from scripts.workflow.paths import NAMES_OF_A_RUN, RESERVED_DIRS, path_fault, results_findings


@pytest.mark.parametrize(
    "path", ["a{x}", "{a b}/c.jsonl", "a/{0}", "<results>/x", "a<b_1>", "a\nb", "a\tb", "a\x1b[0m", "a\x7f"]
)
def test_a_path_that_snakemake_would_change_is_refused(path: str) -> None:
    assert (fault := path_fault(path)) is not None
    assert "\n" not in fault and fault.startswith('"')


@pytest.mark.parametrize(
    "path",
    [
        "my models/Qwen 3",
        "vl $(touch x)",
        "it's",
        'a"b',
        "a`b`",
        "ä/模型/😀",
        "a;b|c&d>e",
        "-n",
        "a{b",
        "a<B>",
        "a*?[b]",
        "a\\b",
        "#1",
        "ä" * 100,
        "/".join(["a" * 199] * 20),
    ],
)
def test_other_paths_of_the_users_are_taken(path: str) -> None:
    assert path_fault(path) is None


@pytest.mark.parametrize("path", ["a" * 201, "ä" * 101, "a/" * 2001, "a/\ud800"])
def test_a_path_that_no_file_can_have_is_refused(path: str) -> None:
    assert "expected" in (path_fault(path) or "")


@pytest.mark.parametrize(
    "results",
    ["", ".", "..", "../x", "a/..", "a/../b", "/tmp/x", "a/", "a//b", "./a", "-n", "a/-n", ".snakemake/x", ".git", "a/.b",
     "LICENSE", "LICENSE/x", "resources", "scripts/x", "work", "logs/x", "a" * 101, "/".join(["a" * 90] * 3)],
)  # fmt: skip
def test_results_are_refused_where_they_would_not_be_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch, results: str
) -> None:
    monkeypatch.chdir(root)
    (found,) = results_findings(results)
    assert found.startswith("results: ") and "expected" in found


def test_results_that_another_run_would_share_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    for name in NAMES_OF_A_RUN:
        (found,) = results_findings(f"results/mine/{name}/more")
        assert f"a run in results/mine keeps files of its own in {name}/" in found
    layout = Layout(yaml.safe_load((root / "config.yaml").read_text()))
    made = [
        layout.prepared_rows("stage1"),
        layout.graft_config,
        layout.metrics("stage2"),
        layout.report,
        layout.curve("stage1"),
    ]
    made += [layout.model_files_dir, layout.calibration, layout.effective_config, layout.disagreements("mmmu")]
    made += [layout.records("mmmu", "stage1"), *layout.step_times.values()]
    names = {path.removeprefix("results/").partition("/")[0] for path in made if path.startswith("results/")}
    assert names <= {*NAMES_OF_A_RUN}


@pytest.mark.parametrize("results", ["results", "results/demo", "results/2026-11-30_a.b", "runs/x", "_a/B"])
def test_results_in_a_directory_of_their_own_are_taken(
    root: Path, monkeypatch: pytest.MonkeyPatch, results: str
) -> None:
    monkeypatch.chdir(root)
    assert list(results_findings(results)) == []


def test_every_directory_of_this_repository_is_reserved(root: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    tracked = {name.partition("/")[0] for name in listed if "/" in name and not name.startswith(".")}
    assert tracked | {"logs", "resources", "work"} == set(RESERVED_DIRS)


def test_results_that_are_a_link_to_nothing_or_a_pipe_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results/gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "results/pipe")
    (tmp_path / "results/linked").symlink_to(tmp_path)
    assert ["results/gone is a link to nothing" in line for line in results_findings("results/gone/run")] == [True]
    assert ["results/pipe is a pipe" in line for line in results_findings("results/pipe")] == [True]
    assert list(results_findings("results/linked")) == []


@pytest.mark.parametrize("beside", ["logs/results/mine", "work/results/mine", "logs"])
def test_a_file_where_a_run_would_keep_its_logs_or_its_work_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / beside).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / beside).touch()
    (found,) = results_findings("results/mine")
    assert found.endswith(f"{beside} is a file; expected the name of a directory")
