"""A real model server behind a proxy that misbehaves: a right table, or a refusal that names the question, no wrong number."""

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helpers.evalscope_forks import EvalScopeForks
from helpers.evaluation_inputs import NEUTRAL_DECODING, benchmark_rows, write_rows
from helpers.evaluation_run import NATIVE_SETTINGS, EvaluationRun, refusal
from helpers.graft_run import graft_donors
from helpers.processes import wait_for
from helpers.small_file_system import small_file_system
from scripts.common.settings import settings_from
from scripts.serve.command import Serving
from scripts.serve.server import ModelServer, model_server
from scripts.serve.settings import ServeSettings

pytestmark = [pytest.mark.slow, pytest.mark.full]

NUM_QUESTIONS = 12
SERVE = {
    "backend": "transformers",
    "num_replicas": 1,
    "num_nodes": 1,
    "environment": {"MAX_PIXELS": 3136},
    "flags": {
        **NEUTRAL_DECODING,
        "torch_dtype": "float32",
        "attn_impl": "sdpa",
        "max_new_tokens": 8,
        "served_model_name": "Qwen3-VL",
    },
    "startup_timeout_s": 600,
}
# Faults by the number of their question. Those that pass: asked again until they are over, the table is the undisturbed one.
PASSING = {
    2: {"fault": "http_500", "num_times": 1},
    3: {"fault": "null", "num_times": 1},
    5: {"fault": "not_json", "num_times": 1},
    7: {"fault": "http_400", "num_times": 3},  # all three tries of the first start
    8: {"fault": "cut", "num_times": 1},
    10: {"fault": "slow"},
}
# The native backend's client tries again after a 500 or a cut, and not after a 400.
NATIVE_PASSING = {
    2: {"fault": "http_500", "num_times": 1},
    7: {"fault": "http_400", "num_times": 1},
    8: {"fault": "cut", "num_times": 1},
}
# Those that stay: refused, with the questions' numbers; the reason of each is in the file of answers.
STAYING = {
    2: ("HTTP 500", {"fault": "http_500"}),
    3: ("HTTP 200", {"fault": "null"}),
    8: ("IncompleteRead", {"fault": "cut"}),
}
NATIVE_STAYING = {
    3: ("content is null", {"fault": "null"}),
    7: ("the proxy refuses this question", {"fault": "http_400"}),
}
# What the proxy does in each evaluation; those with "native" in their name are of the native backend.
BEHAVIOURS: dict[str, dict[int, dict[str, Any]]] = {
    "undisturbed": {},
    "renamed": {0: {"fault": "renamed"}},
    "dies": {7: {"fault": "dies", "num_times": 1}},
    "passing": PASSING,
    "staying": {number: fault for number, (_, fault) in STAYING.items()},
    "replicas": {},
    "shares": {},
    "native": {},
    "native_dies": {7: {"fault": "dies", "num_times": 1}},
    "native_passing": NATIVE_PASSING,
    "native_staying": {number: fault for number, (_, fault) in NATIVE_STAYING.items()},
}


@dataclass(frozen=True)
class Ended:
    """An evaluation that ran to its end."""

    run: EvaluationRun
    status: int
    output: str
    asked: list[str]
    nums_faults: dict[int, int]


@pytest.fixture(scope="module")
def graft_dir(root: Path, tiny_vl_dir: Path, tiny_llm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graft_donors(root, tiny_vl_dir, tiny_llm_dir, tmp_path_factory.mktemp("model") / "graft", "qwen3", "fresh")


@pytest.fixture(scope="module")
def server(train_python: Path, graft_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """The one real model server, behind all proxies."""
    serving = Serving(train_python, graft_dir, settings_from(ServeSettings, SERVE))
    with model_server(serving, os.environ, tmp_path_factory.mktemp("server")) as running:
        wait_for(running.is_ready)
        yield running


@pytest.fixture(scope="module")
def ended(
    root: Path,
    evaluate_python: Path,
    evalscope_forks: EvalScopeForks,
    train_python: Path,
    graft_dir: Path,
    server: ModelServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Ended]:
    """All evaluations, two at a time."""
    directory = tmp_path_factory.mktemp("faults")

    def evaluate(name: str) -> Ended:
        run = EvaluationRun(root, directory / name, evaluate_python, train_python, graft_dir, forks=evalscope_forks)
        run.serve = json.loads(json.dumps(SERVE))
        rows = benchmark_rows(NUM_QUESTIONS)
        for row in rows:
            row["question"] = f"Which digit? [{row['index']}]"
        write_rows(rows, run.tsv)
        state_path = run.directory / "state"
        faults = [{"text": f"[{number}]", **fault} for number, fault in BEHAVIOURS[name].items()]
        behaviour = {"server_port": server.port, "state_path": str(state_path), "faults": faults}
        run.serve["environment"]["PROXY"] = json.dumps(behaviour)
        run.serve_python = run.directory / "python"
        run.serve_python.write_text(
            f'#!/bin/sh\nexec {sys.executable} {root}/tests/helpers/misbehaving_proxy.py {train_python} "$@"\n'
        )
        run.serve_python.chmod(0o755)
        if "native" in name:
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
        asked = [json.loads(line) for line in lines if line.startswith('"')]
        nums_faults = {number: lines.count(f"fault [{number}]") for number in range(NUM_QUESTIONS)}
        return Ended(run, status, output, asked, nums_faults)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(BEHAVIOURS, pool.map(evaluate, BEHAVIOURS), strict=True))


def test_an_undisturbed_evaluation_asks_each_question_once(ended: dict[str, Ended]) -> None:
    undisturbed = ended["undisturbed"]
    assert undisturbed.status == 0, undisturbed.output
    times = [sum(f"[{number}]" in text for text in undisturbed.asked) for number in range(NUM_QUESTIONS)]
    assert times == [1] * NUM_QUESTIONS


@pytest.mark.parametrize("name", ["passing", "dies", "native_passing", "native_dies"])
def test_faults_that_pass_leave_the_table_as_it_would_have_been(ended: dict[str, Ended], name: str) -> None:
    assert ended[name].status == 0, ended[name].output
    undisturbed = ended["native" if "native" in name else "undisturbed"]
    assert ended[name].run.records() == undisturbed.run.records()
    for number, fault in BEHAVIOURS[name].items():  # or a fault that never happened would pass, too
        assert ended[name].nums_faults[number] == fault.get("num_times", 1)


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


@pytest.mark.parametrize(("name", "staying"), [("staying", STAYING), ("native_staying", NATIVE_STAYING)])
def test_faults_that_stay_are_refused_with_the_questions_and_the_reason(
    ended: dict[str, Ended], name: str, staying: dict[int, tuple[str, Any]]
) -> None:
    message = refusal(ended[name].run, ended[name].status, ended[name].output)
    questions = ", ".join(map(str, staying))
    assert f"{len(staying)} questions ({questions}) of {NUM_QUESTIONS} failed at the server: " in message
    answers = [json.loads(line) for line in ended[name].run.answers_path.read_text().splitlines()]
    errors = {int(answer["index"]): answer["error"] for answer in answers if answer["error"]}
    assert errors.keys() == staying.keys()
    assert all(reason in errors[number] for number, (reason, _) in staying.items())
    assert any(reason in message for reason, _ in staying.values())


def test_a_server_that_offers_another_model_is_refused_before_a_question_is_asked(ended: dict[str, Ended]) -> None:
    renamed = ended["renamed"]
    message = refusal(renamed.run, renamed.status, renamed.output)
    assert "the server offers another-model; expected Qwen3-VL" in message
    assert renamed.asked == []


def test_what_was_answered_before_the_server_died_is_not_asked_again(ended: dict[str, Ended]) -> None:
    times = [sum(f"[{number}]" in text for text in ended["dies"].asked) for number in range(NUM_QUESTIONS)]
    # Four questions are asked at a time; those under way when it died are asked again.
    assert times[7] == 2 and sum(times) <= NUM_QUESTIONS + 4


def test_a_full_disk_ends_in_a_refusal(
    root: Path, evaluate_python: Path, evalscope_forks: EvalScopeForks, train_python: Path, tmp_path: Path
) -> None:
    model_dir = tmp_path / "model"
    run = EvaluationRun(root, tmp_path / "full", evaluate_python, train_python, model_dir, forks=evalscope_forks)
    model_dir.mkdir()
    (model_dir / "config.json").write_text('{"model_type": "qwen2_5_vl_qwen3"}')
    run.stand_in()
    with small_file_system(run.directory / "work", "64k"):
        message = refusal(run, *run.run())
    assert "No space left on device" in message
