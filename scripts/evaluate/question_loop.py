"""Asks a served model all questions of a benchmark through EvalScope: starts both, watches both, asks again what failed.

Third of the evaluation's four layers (scripts/evaluate/job.py lists them): job.py gives it a Task; it starts
run_vlmevalkit.py or run_native.py.

A start is the model's servers (ms-swift in its own environment, one a replica) and one EvalScope (in this environment), side
by side. Questions that failed are asked once more by a second start; those answered already, now or before an interruption,
are not asked again (answer_log.py). With sampling each question is asked once for each seed. The files of a start lie in
DIRECTORY/start1, start2.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import write_json_atomically
from scripts.common.root import ROOT
from scripts.common.units import duration
from scripts.evaluate.answer_log import Answer, keep_sound_answers, read_answers
from scripts.evaluate.evaluation_log import Log
from scripts.evaluate.judgements import Judgement, read_judgements
from scripts.evaluate.provenance import Timing
from scripts.evaluate.settings import HARNESS_SETTINGS, HarnessSettings
from scripts.evaluate.task_file import HarnessTask, Round
from scripts.questions.indices import NUM_NAMED, named
from scripts.questions.tables import Question
from scripts.serve.child_processes import process_group
from scripts.serve.command import Serving, replica_environments
from scripts.serve.server import ModelServer, last_error, model_server

# The program that asks by each of EvalScope's backends.
HARNESSES = {name: f"evaluate.run_{name}" for name in HARNESS_SETTINGS}

NUM_STARTS = 2  # the second for questions that failed at the first
POLL_S = 0.2
PROGRESS_S = 10.0

# A closed port: the address given to EvalScope when no questions are left; a request would fail.
CLOSED_PORT_URL = "http://127.0.0.1:9/v1"

# Variables that change what VLMEvalKit asks, where it sends it, or in which files it keeps it.
_VLMEVALKIT_VARIABLES = (
    "LMUData", "MMEVAL_ROOT", "PRED_FORMAT", "EVAL_FORMAT", "FWD_API", "SPLIT_THINK", "SKIP_ERR", "EVAL_PROXY",
    "VERBOSE", "PRINT_VANILLA", "FORCE_LOCAL", "BOYUE", "OPENAI_API_BASE", "OPENAI_API_KEY", "LOCAL_LLM", "RANK",
    "WORLD_SIZE", "LOCAL_WORLD_SIZE", "VLMEVAL_MAX_IMAGE_SIZE", "VLMEVAL_MIN_IMAGE_EDGE",
)  # fmt: skip
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@dataclass(frozen=True)
class Task:
    """What is asked of which checkpoint; `directory/lmu_data` holds the benchmark as it is asked (a control's pictures)."""

    directory: Path
    key: str  # of everything that decides the answers but the seed
    backend: str  # EvalScope's
    dataset: str  # the backend's name of the benchmark
    tsv: Path  # the benchmark as the user has it
    is_original: bool  # asked with the benchmark's own pictures
    is_blind: bool  # asked without pictures
    settings: HarnessSettings
    seeds: Sequence[int]
    questions: Sequence[Question]  # all, or one node's share
    smoke_picture: str  # base64; of the first question to each server
    serving: Serving

    @property
    def lmu_data(self) -> Path:
        return self.directory / "lmu_data"

    @property
    def indices(self) -> frozenset[str]:
        return frozenset(question.index for question in self.questions)

    def answers_path(self, seed: int) -> Path:
        return self.directory / answers_name(seed)

    def key_of(self, seed: int) -> str:
        """The key of one seed's lines in the file of answers."""
        return f"{self.key}:{seed}"

    @property
    def num_answers(self) -> int:
        """How many there are in the end."""
        return len(self.questions) * len(self.seeds)

    def answers(self) -> dict[int, list[Answer]]:
        """The answers so far, by seed."""
        return {seed: read_answers(self.answers_path(seed), self.key_of(seed)) for seed in self.seeds}

    def keep_sound_answers(self) -> int:
        """Leaves in the files the answers that need not be asked for again, and counts them."""
        indices = self.indices
        return sum(len(keep_sound_answers(self.answers_path(seed), self.key_of(seed), indices)) for seed in self.seeds)


@dataclass(frozen=True)
class Asked:
    """All answers and judgements, by seed; answers may still hold failures, which the caller refuses."""

    answers: Mapping[int, list[Answer]]
    judgements: Mapping[int, list[Judgement]]
    timing: Timing


def answers_name(seed: int) -> str:
    return f"answers-{seed}.jsonl"


def is_answers_name(name: str) -> bool:
    return name.startswith("answers-") and name.endswith(".jsonl")


def judgements_path(start_dir: Path, seed: int) -> Path:
    return start_dir / f"judgements-{seed}.jsonl"


def harness_environment(inherited: Mapping[str, str], lmu_data: Path) -> dict[str, str]:
    """EvalScope's variables: its data and caches lie in our directory, nothing is fetched, requests stay on this machine."""
    kept = {k: v for k, v in inherited.items() if k not in (*_VLMEVALKIT_VARIABLES, *_PROXY_VARIABLES)}
    own = {
        "LMUData": str(lmu_data),
        # A TSV, unlike a workbook, does not take an answer that starts with "=" for a formula.
        "PRED_FORMAT": "tsv",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    return {**kept, **own}


def write_task(task: Task, start_dir: Path) -> Path:
    """Writes task.json for one start of EvalScope."""
    rounds = [
        Round(
            seed=seed,
            key=task.key_of(seed),
            answers=str(task.answers_path(seed)),
            judgements=str(judgements_path(start_dir, seed)),
            run_dir=str(start_dir / f"seed{seed}"),
        )
        for seed in task.seeds
    ]
    content = HarnessTask(
        dataset=task.dataset,
        tsv=str(task.tsv),
        asked_tsv=str(task.lmu_data / f"{task.dataset}.tsv"),
        is_original=task.is_original,
        is_blind=task.is_blind,
        served_name=task.serving.settings.served_name,
        settings=task.settings,
        indices=sorted(task.indices),
        begun=str(start_dir / "begun"),
        rounds=rounds,
    )
    path = start_dir / "task.json"
    write_json_atomically(path, asdict(content))
    return path


def harness_command(python: str, task: Task, start_dir: Path) -> list[str]:
    """The command that runs EvalScope, whose task it writes."""
    return [python, str(ROOT / "scripts"), HARNESSES[task.backend], "--task", str(write_task(task, start_dir))]


def require_running(harness: subprocess.Popen[bytes], harness_log: Path) -> None:
    """Raises UserError with EvalScope's reason when it has failed."""
    if status := harness.poll():
        reason = last_error(harness_log)
        if reason.startswith("error: "):  # a message of our own program
            raise UserError(reason.removeprefix("error: "))
        raise UserError(f"{harness_log}: EvalScope ended (exit status {status}): {reason}; see this file")


def wait_until_ready(servers: Sequence[ModelServer], harness: subprocess.Popen[bytes], harness_log: Path) -> None:
    """Returns when all servers answer; raises UserError when one of them or EvalScope has ended."""
    while sum(server.is_ready() for server in servers) < len(servers):  # all are looked at: one may have ended
        require_running(harness, harness_log)
        time.sleep(POLL_S)


def watch_answers(
    servers: Sequence[ModelServer], harness: subprocess.Popen[bytes], task: Task, start_dir: Path, log: Log
) -> float:
    """Returns when the asking began, once EvalScope has ended or several questions have failed.

    Raises UserError when a server dies or EvalScope fails.
    """
    started_s = logged_s = time.monotonic()
    num_before = sum(map(len, task.answers().values()))
    while harness.poll() is None:
        time.sleep(POLL_S)
        for server in servers:
            server.require_alive()
        if not (start_dir / "begun").exists():  # EvalScope is still being imported
            started_s = logged_s = time.monotonic()
        elif (now_s := time.monotonic()) - logged_s >= PROGRESS_S:
            logged_s = now_s
            answers = [answer for of_seed in task.answers().values() for answer in of_seed]
            if sum(answer.is_failed for answer in answers) >= NUM_NAMED:
                return started_s
            if num_new := len(answers) - num_before:
                rate = num_new / (now_s - started_s)
                left_s = (task.num_answers - len(answers)) / rate
                log(
                    f"answered {len(answers)} of {task.num_answers}, {rate:.1f} a second, about {duration(left_s)} left"
                )
    require_running(harness, start_dir / "evalscope.log")
    return started_s


def send_addresses(harness: subprocess.Popen[bytes], base_urls: Sequence[str]) -> None:
    """Sends EvalScope the servers' addresses, for which it waits."""
    assert harness.stdin
    with contextlib.suppress(BrokenPipeError):  # it has ended; require_running gives the reason
        harness.stdin.write(f"{json.dumps(list(base_urls))}\n".encode())
        harness.stdin.flush()


@contextlib.contextmanager
def ready_servers(
    task: Task, harness: subprocess.Popen[bytes], start_dir: Path, log: Log
) -> Iterator[list[ModelServer]]:
    """One server a replica, each of which has answered a first question about a picture soundly."""
    with contextlib.ExitStack() as stack:
        servers = []
        environments = replica_environments(os.environ, task.serving.settings.num_replicas)
        for number, environment in enumerate(environments):
            directory = start_dir / f"replica{number}"
            directory.mkdir()
            server = stack.enter_context(model_server(task.serving, environment, directory))
            log(f"the model server is starting, its log is {server.log_path}")
            servers.append(server)
        wait_until_ready(servers, harness, start_dir / "evalscope.log")
        for server in servers:
            server.require_sound_answer(task.smoke_picture)
        yield servers


def ask_once(task: Task, start_dir: Path, num_kept: int, log: Log) -> Timing:
    """One start: all children from their beginning to their end."""
    start_dir.mkdir()
    num_left = task.num_answers - num_kept
    command = harness_command(sys.executable, task, start_dir)
    environment = harness_environment(os.environ, task.lmu_data)
    started_s = time.monotonic()
    with process_group(command, environment, start_dir, start_dir / "evalscope.log") as harness:
        if num_left:
            with ready_servers(task, harness, start_dir, log) as servers:
                log(f"ready after {duration(time.monotonic() - started_s)}; asking {num_left} questions")
                send_addresses(harness, [server.base_url for server in servers])
                asking_started_s = watch_answers(servers, harness, task, start_dir, log)
        else:
            send_addresses(harness, [CLOSED_PORT_URL])
            asking_started_s = watch_answers([], harness, task, start_dir, log)
    num_asked = sum(map(len, task.answers().values())) - num_kept
    return Timing(asking_started_s - started_s, time.monotonic() - asking_started_s, num_asked)


def ask_all(task: Task, log_path: Path, log: Log) -> Asked:
    """Asks every question for every seed, those that failed a second time; the children's logs are added to `log_path`."""
    try:
        return _ask_all(task, log)
    finally:
        append_logs(task.directory, log_path)


def _ask_all(task: Task, log: Log) -> Asked:
    timing = Timing(0, 0, 0)
    for number in range(1, NUM_STARTS + 1):
        start_dir = task.directory / f"start{number}"
        if num_kept := task.keep_sound_answers():
            log(f"{num_kept} of {task.num_answers} questions were answered before and are not asked again")
        timing += ask_once(task, start_dir, num_kept, log)
        answers = task.answers()
        failed = [answer for of_seed in answers.values() for answer in of_seed if answer.is_failed]
        if not failed:
            break
        if number < NUM_STARTS:
            reason = failed[0].error or failed[0].prediction
            log(f"{named({a.index for a in failed})} failed: {reason}; asked again by a server started anew")
    shutil.rmtree(task.lmu_data)  # a copy of the benchmark and its pictures, decoded
    judgements = {seed: read_judgements(judgements_path(start_dir, seed)) for seed in task.seeds}
    return Asked(answers, judgements, timing)


def append_logs(directory: Path, log_path: Path) -> None:
    """Adds the logs of all children, in the order of their starts, to our own."""
    with open(log_path, "ab") as log:
        for start_dir in sorted(directory.glob("start*")):
            for path in (*sorted(start_dir.glob("replica*/server.log")), start_dir / "evalscope.log"):
                if path.exists():
                    log.write(f"\n---- {path}\n".encode())
                    with open(path, "rb") as part:
                        shutil.copyfileobj(part, log)
