"""Every path of a run follows from its configuration."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.workflow.layout import Layout, before, file_name, shipped, stages_up_to, text_path


@pytest.fixture
def config(root: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((root / "config.yaml").read_text()))


def test_runs_with_different_donors_have_manifests_of_their_own(config: dict[str, Any]) -> None:
    assert Layout(config).donor_manifest("llm") == "resources/donors/modelscope--Qwen--Qwen3-8B--master.json"
    config["donors"]["llm"] = {"kind": "local", "path": "/models/Qwen3-8B"}
    assert re.fullmatch(r"resources/donors/local-llm-Qwen3-8B-[0-9a-f]{12}\.json", Layout(config).donor_manifest("llm"))
    assert Layout(config).donor_dir("llm") == "/models/Qwen3-8B"


def test_two_directories_of_one_name_are_two_donors(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def manifest(path: str) -> str:
        config["donors"]["llm"] = {"kind": "local", "path": path}
        return Layout(config).donor_manifest("llm")

    monkeypatch.chdir(tmp_path)
    assert manifest("runA/checkpoint-1000") != manifest("runB/checkpoint-1000")
    assert manifest("runA/checkpoint-1000") == manifest(f"{tmp_path}/runA/checkpoint-1000")


def test_a_small_file_represents_each_model(config: dict[str, Any]) -> None:
    layout = Layout(config)
    assert layout.checkpoint_identity("parent") == layout.donor_manifest("vl")
    assert layout.checkpoint_identity("graft") == "results/graft/ledger.tsv"
    assert layout.checkpoint_identity("stage2") == "results/stage2/metrics.json"
    assert layout.checkpoint_dir("stage2") == "results/stage2/checkpoint"
    assert [before(stage) for stage in ("stage1", "stage2")] == ["graft", "stage1"]
    assert stages_up_to("stage2") == ("stage1", "stage2")


def test_questions_lie_where_they_come_from(config: dict[str, Any]) -> None:
    layout = Layout(config)
    assert layout.questions("mmmu") == "resources/benchmarks/MMMU_DEV_VAL.tsv"
    assert layout.questions_identity("mmmu") == "resources/benchmarks/MMMU_DEV_VAL.md5"
    config["evaluate"] |= {"backend": "native"}
    native = Layout(config)
    assert Path(native.questions_identity("mmmu")).parent == Path("resources/benchmarks/native")
    config["evaluate"]["benchmarks"] = [{"own": "my/list.jsonl"}, {"table": "my/table.tsv"}]
    own = Layout(config)
    assert own.questions("own") == "results/questions/own.tsv"
    assert own.questions_identity("own") == "results/questions/own.json"
    assert own.questions("table") == "results/questions/table.tsv"


def test_questions_are_shared_among_several_nodes_only(config: dict[str, Any]) -> None:
    assert Layout(config).shares == []
    config["evaluate"]["serve"]["num_nodes"] = 3
    assert Layout(config).shares == [0, 1, 2]


def test_files_of_the_repository_are_found_from_another_directory(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    assert shipped("envs/train.lock") == "envs/train.lock"
    assert text_path("LICENSE") == "LICENSE"
    monkeypatch.chdir(tmp_path)
    assert shipped("envs/train.lock") == str(root / "envs/train.lock")
    assert text_path("LICENSE") == str(root / "LICENSE")
    (tmp_path / "LICENSE").touch()
    assert text_path("LICENSE") == "LICENSE"
    assert text_path("my/text.txt") == "my/text.txt"


def test_the_demo_makes_its_donors_in_a_place_of_its_own_whatever_the_donors_are(config: dict[str, Any]) -> None:
    config["seed"] = 3
    config["donors"] = {role: {"kind": "local", "path": f"/models/{role}"} for role in ("vl", "llm")}
    layout = Layout(config)
    assert layout.demo_donor_dir("vl") == "resources/donors/demo-vl-seed3"
    assert layout.donor_dir("vl") == "/models/vl"
    config["donors"] = {role: {"kind": "demo"} for role in ("vl", "llm")}
    assert Layout(config).donor_dir("llm") == Layout(config).demo_donor_dir("llm") == "resources/donors/demo-llm-seed3"
    assert Layout(config).donor_time("llm") == "resources/donors/demo-llm-seed3.made.tsv"


def test_a_plain_name_stays_as_it_is() -> None:
    for name in ("Qwen3-8B", "checkpoint-1000", "a_b.c", "x" * 120):
        assert file_name(name) == name


def test_another_name_becomes_one_that_no_shell_and_no_snakemake_changes() -> None:
    names = [
        "a b",
        "a_b",
        "a  b",
        "$(touch x)",
        "{x}",
        "<results>",
        "a;b",
        "ä",
        "模型",
        "it's",
        'a"b',
        "-",
        "x" * 121,
        "x" * 122,
        "a\u0308",
    ]
    made = [file_name(name) for name in names]
    assert len(set(made)) == len(names), "two of the user's names stay two"
    for name in made:
        assert re.fullmatch(r"[A-Za-z0-9_.-]{1,133}", name)
