"""A real model server behind a proxy that misbehaves: a right table, or a refusal that names the question, no wrong number."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from evaluation_inputs import benchmark_rows, write_rows
from evaluation_run import NATIVE_SETTINGS, EvaluationRun, refusal
from graft_run import graft_donors

pytestmark = pytest.mark.slow

NUM_QUESTIONS = 12
SERVE = {
    "backend": "transformers",
    "num_replicas": 1,
    "num_nodes": 1,
    "environment": {"MAX_PIXELS": 3136},
    "flags": {"torch_dtype": "float32", "attn_impl": "sdpa", "max_new_tokens": 8, "served_model_name": "Qwen3-VL"},
    "startup_timeout_s": 600,
}
# A fault that passes: asked again until it is over, the table is that of the undisturbed run.
PASSING = {
    "http_500_once": {"fault": "http_500", "num_times": 1},
    "http_400_at_the_first_start": {"fault": "http_400", "num_times": 3},  # all three tries of one start
    "null_once": {"fault": "null", "num_times": 1},
    "not_json_once": {"fault": "not_json", "num_times": 1},
    "cut_once": {"fault": "cut", "num_times": 1},
    "slow": {"fault": "slow", "delay_s": 5.0},
}
# A fault that stays: refused, with the question's number and the reason.
STAYING = {
    "http_500": ("HTTP 500", {"fault": "http_500"}),
    "null": ("HTTP 200", {"fault": "null"}),
    "cut": ("IncompleteRead", {"fault": "cut"}),
}
# The same in the native backend, whose client tries again after a 500 and not after a 400.
NATIVE_PASSING = {
    "native_http_500_once": {"fault": "http_500", "num_times": 1},
    "native_http_400_once": {"fault": "http_400", "num_times": 1},
    "native_cut_once": {"fault": "cut", "num_times": 1},
}
NATIVE_STAYING = {
    "native_http_400": ("the proxy refuses this question", {"fault": "http_400"}),
    "native_null": ("content is null", {"fault": "null"}),
}


@dataclass(frozen=True)
class Ended:
    """An evaluation that ran to its end."""

    run: EvaluationRun
    status: int
    output: str
    asked: list[str]


@pytest.fixture(scope="module")
def ended(
    root: Path,
    evaluate_python: Path,
    train_python: Path,
    tiny_vl_dir: Path,
    tiny_llm_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Ended]:
    """All evaluations, two at a time."""
    directory = tmp_path_factory.mktemp("faults")
    graft_dir = graft_donors(root, tiny_vl_dir, tiny_llm_dir, directory / "graft", "qwen3", "fresh")
    behaviours = {"undisturbed": {"fault": "none"}, "renamed": {"fault": "renamed"}}
    behaviours |= {"dies": {"fault": "dies", "num_times": 1}, **PASSING}
    behaviours |= {name: behaviour for name, (_, behaviour) in (STAYING | NATIVE_STAYING).items()}
    behaviours |= {"native_undisturbed": {"fault": "none"}, **NATIVE_PASSING}
    behaviours |= {"native_dies": {"fault": "dies", "num_times": 1}}
    behaviours |= {name: {"fault": "none"} for name in ("replicas", "shares")}

    def evaluate(name: str) -> Ended:
        run = EvaluationRun(
            root, directory / name, evaluate_python, train_python, graft_dir, serve=json.loads(json.dumps(SERVE))
        )
        rows = benchmark_rows(NUM_QUESTIONS)
        for row in rows:
            row["question"] = f"Which digit? [{row['index']}]"
        write_rows(rows, run.tsv)
        state_path = run.directory / "state"
        proxy: dict[str, Any] = {"state_path": str(state_path), "text": "[7]"}
        run.serve["environment"]["PROXY"] = json.dumps(proxy | behaviours[name])
        run.serve_python = run.directory / "python"
        run.serve_python.write_text(
            f'#!/bin/sh\nexec {sys.executable} {root}/tests/misbehaving_proxy.py {train_python} "$@"\n'
        )
        run.serve_python.chmod(0o755)
        if name.startswith("native_"):
            run.backend, run.settings = "native", NATIVE_SETTINGS | {"temperature": 0}
        if name == "replicas":
            run.serve["num_replicas"] = 2
        if name == "shares":
            run.serve["num_nodes"] = 2
            refusal(run, *run.run())  # before the nodes have answered
            for share in range(2):
                status, output = run.run(share=share)
                assert status == 0, output
        status, output = run.run()
        if name.endswith("dies"):
            refusal(run, status, output)
            status, output = run.run()  # the same command again
        lines = state_path.read_text().splitlines()
        return Ended(run, status, output, [json.loads(line) for line in lines if line.startswith('"')])

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(behaviours, pool.map(evaluate, behaviours), strict=True))


def test_an_undisturbed_evaluation_asks_each_question_once(ended: dict[str, Ended]) -> None:
    undisturbed = ended["undisturbed"]
    assert undisturbed.status == 0, undisturbed.output
    times = [sum(f"[{number}]" in text for text in undisturbed.asked) for number in range(NUM_QUESTIONS)]
    assert times == [1] * NUM_QUESTIONS


@pytest.mark.parametrize("name", [*PASSING, "dies", *NATIVE_PASSING, "native_dies"])
def test_a_fault_that_passes_leaves_the_table_as_it_would_have_been(ended: dict[str, Ended], name: str) -> None:
    assert ended[name].status == 0, ended[name].output
    undisturbed = ended["native_undisturbed" if name.startswith("native_") else "undisturbed"]
    assert ended[name].run.records() == undisturbed.run.records()


@pytest.mark.parametrize("name", ["replicas", "shares"])
def test_questions_that_are_spread_over_servers_or_nodes_have_the_records_of_one(
    ended: dict[str, Ended], name: str
) -> None:
    assert ended[name].status == 0, ended[name].output
    assert ended[name].run.records() == ended["undisturbed"].run.records()
    times = [sum(f"[{number}]" in text for text in ended[name].asked) for number in range(NUM_QUESTIONS)]
    assert times == [1] * NUM_QUESTIONS


def test_each_node_asks_its_part_of_the_questions_alone(ended: dict[str, Ended]) -> None:
    shares = [json.loads((ended["shares"].run.directory / f"share{number}.json").read_text()) for number in range(2)]
    assert [share["num_questions"] for share in shares] == [NUM_QUESTIONS / 2] * 2
    provenance = json.loads(ended["shares"].run.provenance_path.read_text())
    assert provenance["num_asked_before"] == NUM_QUESTIONS


@pytest.mark.parametrize("name", [*STAYING, *NATIVE_STAYING])
def test_a_fault_that_stays_is_refused_with_the_question_and_the_reason(ended: dict[str, Ended], name: str) -> None:
    message = refusal(ended[name].run, ended[name].status, ended[name].output)
    assert f"1 question (7) of {NUM_QUESTIONS} failed at the server: " in message
    assert (STAYING | NATIVE_STAYING)[name][0] in message


def test_a_server_that_offers_another_model_is_refused_before_a_question_is_asked(ended: dict[str, Ended]) -> None:
    renamed = ended["renamed"]
    message = refusal(renamed.run, renamed.status, renamed.output)
    assert "the server offers another-model; expected Qwen3-VL" in message
    assert renamed.asked == []


def test_what_was_answered_before_the_server_died_is_not_asked_again(ended: dict[str, Ended]) -> None:
    times = [sum(f"[{number}]" in text for text in ended["dies"].asked) for number in range(NUM_QUESTIONS)]
    # Four questions are asked at a time; those under way when it died are asked again.
    assert times[7] == 2 and sum(times) <= NUM_QUESTIONS + 4


def test_a_full_disk_ends_in_a_refusal(root: Path, evaluate_python: Path, train_python: Path, tmp_path: Path) -> None:
    run = EvaluationRun(root, tmp_path / "full", evaluate_python, train_python, tmp_path / "model")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"model_type": "qwen2_5_vl_qwen3"}')
    run.stand_in()
    work_dir = run.directory / "work"
    work_dir.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(work_dir)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a file system of its own needs root")
    try:
        message = refusal(run, *run.run())
    finally:
        subprocess.run(["umount", "-l", str(work_dir)], check=True)
    assert "No space left on device" in message
