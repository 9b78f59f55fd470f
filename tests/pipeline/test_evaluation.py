"""Real checkpoints served by `swift deploy` and asked by EvalScope, on a CPU, from one command to a table."""

import base64
import csv
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from helpers.evaluation_inputs import NEUTRAL_DECODING, benchmark_rows
from helpers.evaluation_run import EvaluationRun, refusal
from helpers.graft_run import graft_donors
from helpers.processes import LIMIT_S, wait_for
from scripts.common.files import md5_of_file
from scripts.donors.model_files import model_sha256

pytestmark = [pytest.mark.slow, pytest.mark.full]
NAMES = ("graft", "graft-shuffled")
SERVE = {
    "backend": "transformers",
    "num_replicas": 1,
    "num_nodes": 1,
    "environment": {"MAX_PIXELS": 3136},
    "flags": {**NEUTRAL_DECODING, "torch_dtype": "float32", "attn_impl": "sdpa", "max_new_tokens": 8},
    "startup_timeout_s": 600,
}


@pytest.fixture(scope="module")
def graft_dir(root: Path, tiny_vl_dir: Path, tiny_llm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graft of two random donors, made by the programs that make one."""
    output_dir = tmp_path_factory.mktemp("results") / "graft"
    return graft_donors(root, tiny_vl_dir, tiny_llm_dir, output_dir, "qwen3", "fresh")


def make_run(root: Path, directory: Path, evaluate_python: Path, train_python: Path, model_dir: Path) -> EvaluationRun:
    return EvaluationRun(root, directory, evaluate_python, train_python, model_dir, serve=json.loads(json.dumps(SERVE)))


def test_a_graft_is_asked_about_pictures_and_about_shuffled_ones_and_both_make_a_table(
    root: Path, evaluate_python: Path, train_python: Path, graft_dir: Path, tmp_path: Path
) -> None:
    eval_dir = tmp_path / "eval"
    eval_dir.mkdir()
    before = model_sha256(graft_dir)
    runs = {name: make_run(root, tmp_path / name, evaluate_python, train_python, graft_dir) for name in NAMES}
    runs["graft-shuffled"].control = "shuffled"
    processes = {name: run.start() for name, run in runs.items()}
    for name, run in runs.items():
        output, _ = processes[name].communicate(timeout=LIMIT_S)
        assert processes[name].returncode == 0, output
        assert "over 12 answers" in output
        check_whole(run)
        run.records_path.rename(eval_dir / f"{name}.jsonl")
        run.provenance_path.rename(eval_dir / f"{name}.json")
    assert model_sha256(graft_dir) == before

    command = [
        sys.executable,
        "scripts",
        "evaluate.make_table",
        "--output-csv",
        f"{eval_dir}.csv",
        "--output-json",
        f"{eval_dir}.json",
        "--output-comparison",
        f"{eval_dir}.comparison.csv",
    ]
    command += ["--records", *map(str, sorted(eval_dir.glob("*.jsonl"), reverse=True))]
    command += ["--provenances", *map(str, sorted(eval_dir.glob("*.json")))]
    subprocess.run(command, cwd=root, check=True)
    with open(f"{eval_dir}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    overall = [(row["model"], row["split"], row["num_questions"]) for row in rows if row["group"] == "overall"]
    assert overall == [(m, s, n) for m in NAMES for s, n in (("dev", "4"), ("test", "8"))]
    pictures = [json.loads(line)["image_sha256"] for line in (eval_dir / "graft.jsonl").read_text().splitlines()]
    shuffled = [
        json.loads(line)["image_sha256"] for line in (eval_dir / "graft-shuffled.jsonl").read_text().splitlines()
    ]
    assert all(one != other for one, other in zip(pictures, shuffled, strict=True))


def check_whole(run: EvaluationRun) -> None:
    """Each question of the benchmark has its record, and the provenance names what was asked and by what."""
    rows = benchmark_rows(12)
    records = run.records()
    assert [record["index"] for record in records] == [row["index"] for row in rows]
    for record, row in zip(records, rows, strict=True):
        assert (record["question"], record["answer"], record["split"]) == (row["question"], row["answer"], row["split"])
        assert record["options"] == {letter: row[letter] for letter in "ABCD"}
        assert record["correct"] == (record["extracted"] == record["answer"])
        assert record["prediction"]
    provenance = json.loads(run.provenance_path.read_text())
    assert provenance["checkpoint_sha256"] == model_sha256(run.model_dir)
    assert provenance["versions"]["ms-swift"] == "4.6.0"
    assert provenance["benchmark_md5"] == md5_of_file(run.tsv)
    assert 'HTTP/1.1" 200' in run.log_path.read_text()  # the server's log
    assert "evalscope" in run.log_path.read_text()


def test_people_are_served_until_they_end_it(root: Path, graft_dir: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "scripts",
        "serve.serve",
        "--checkpoint-dir",
        str(graft_dir),
        "--config",
        "config/demo.yaml",
    ]
    said_path = tmp_path / "said"
    with said_path.open("w") as said:
        process = subprocess.Popen(command, cwd=root, stderr=said)
    ready = wait_for(lambda: re.search(r"^ready: (http://127\.0\.0\.1:\d+/v1) ", said_path.read_text(), re.MULTILINE))
    children = psutil.Process(process.pid).children(recursive=True)
    body = {"model": "Qwen3-VL", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
    request = urllib.request.Request(
        f"{ready.group(1)}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=LIMIT_S) as response:
        assert json.load(response)["choices"][0]["finish_reason"] in ("stop", "length")
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT_S) == 0
    assert said_path.read_text().endswith("ended\n")
    assert children and not any(child.is_running() for child in children)


def is_idle(process: psutil.Process) -> Callable[[], bool]:
    """True once a process has used no processor time between many looks in a row."""
    seen: list[float] = []

    def look() -> bool:
        seen.append(sum(process.cpu_times()[:2]))
        return len(seen) > 50 and seen[-50] == seen[-1]

    return look


def test_people_can_ask_about_a_picture_from_the_terminal(root: Path, graft_dir: Path, tmp_path: Path) -> None:
    """A wrong path is asked for again, and what cannot be asked ends nothing."""
    picture_path = tmp_path / "picture.png"
    picture_path.write_bytes(base64.b64decode(benchmark_rows(1)[0]["image"]))
    command = [
        sys.executable,
        "scripts",
        "serve.chat",
        "--checkpoint-dir",
        str(graft_dir),
        "--config",
        "config/demo.yaml",
    ]
    lines = ["<image>Which digit?", str(tmp_path / "no.png"), str(picture_path), "And now?", "quit"]
    finished = subprocess.run(
        command, cwd=root, input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=LIMIT_S
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    first, wrong, second, third, last = finished.stdout.split(" <<< ")[1:]
    assert wrong.startswith(f"{tmp_path / 'no.png'}: not found; expected a picture")
    assert all(said.strip().removesuffix("question").strip() for said in (second, third))
    assert (first.strip(), last.strip()) == ("picture", "")


def test_a_stock_checkpoint_whose_server_is_killed_half_way_is_refused_at_once(
    root: Path, evaluate_python: Path, train_python: Path, tiny_vl_dir: Path, tmp_path: Path
) -> None:
    run = make_run(root, tmp_path / "parent", evaluate_python, train_python, tiny_vl_dir)
    run.settings["nproc"] = 1
    process = run.start()
    answers_path = wait_for(lambda: (tmp_path / "parent/work").exists() and run.server() and run.answers_path)
    wait_for(lambda: answers_path.exists() and answers_path.read_text().count("\n") >= 2)
    server = run.server()
    assert server is not None
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(server.pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=LIMIT_S)
    assert "the model server ended (killed by signal 9 (SIGKILL: " in refusal(run, process.returncode, output)
    assert not any(child.is_running() for child in children)
