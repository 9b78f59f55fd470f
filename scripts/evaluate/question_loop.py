"""Asks a served model all questions of a benchmark through EvalScope: starts both, watches both, asks again what failed.

A start is the model's servers (ms-swift, in its own environment; one a replica) and one EvalScope (run_vlmevalkit.py or
run_native.py, in this one), side by side. Questions that failed are asked once more by a second start; those answered
already, now or before an interruption, are not asked again (common/answer_log.py). With sampling each question is asked
once for each seed. What a start leaves lies in DIRECTORY/start1, start2.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.common.child_processes import process_group
from scripts.common.errors import UserError
from scripts.common.files import write_json_atomically
from scripts.common.logger import Log
from scripts.common.root import ROOT
from scripts.evaluate.answer_log import keep_sound_answers, read_answers
from scripts.evaluate.records import NUM_NAMED, Answer, Judgement, is_failed, named, read_judgements
from scripts.serve.server import DEFAULT_SERVED_NAME, ModelServer, last_error, model_server, replica_environments

# The program that asks by each of EvalScope's backends.
HARNESSES = {name: f"evaluate.run_{name}" for name in ("vlmevalkit", "native")}

NUM_STARTS = 2  # the second for questions that failed at the first
POLL_S = 0.2
PROGRESS_S = 10.0

# Where nobody listens: an EvalScope that has nothing left to ask is told of it, and would fail if it asked.
NOWHERE = "http://127.0.0.1:9/v1"

# Variables that change what VLMEvalKit asks, where it sends it, or in which files it keeps it.
_VLMEVALKIT_VARIABLES = (
    "LMUData", "MMEVAL_ROOT", "PRED_FORMAT", "EVAL_FORMAT", "FWD_API", "SPLIT_THINK", "SKIP_ERR", "EVAL_PROXY",
    "VERBOSE", "PRINT_VANILLA", "FORCE_LOCAL", "BOYUE", "OPENAI_API_BASE", "OPENAI_API_KEY", "LOCAL_LLM", "RANK",
    "WORLD_SIZE", "LOCAL_WORLD_SIZE", "VLMEVAL_MAX_IMAGE_SIZE", "VLMEVAL_MIN_IMAGE_EDGE",
)  # fmt: skip
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@dataclass(frozen=True)
class Task:
    """What is to be asked, in a directory whose `lmu_data` holds the benchmark as it is asked (with a control's pictures)."""

    directory: Path
    key: str  # of everything that decides the answers but the seed
    backend: str
    dataset: str  # the backend's name
    tsv: Path  # as the user has it
    is_original: bool  # asked as it is, without a control's other pictures
    is_blind: bool
    settings: Mapping[str, Any]
    seeds: Sequence[int]
    indices: frozenset[str]  # of the questions that are asked: all, or a node's share
    smoke_picture: str  # base64

    @property
    def lmu_data(self) -> Path:
        return self.directory / "lmu_data"

    def answers_path(self, seed: int) -> Path:
        return self.directory / answers_name(seed)

    def key_of(self, seed: int) -> str:
        """What the answers of one seed are signed with."""
        return f"{self.key}:{seed}"

    @property
    def num_answers(self) -> int:
        """How many there are in the end."""
        return len(self.indices) * len(self.seeds)

    def answers(self) -> dict[int, list[Answer]]:
        """What was answered so far, by seed."""
        return {seed: read_answers(self.answers_path(seed), self.key_of(seed)) for seed in self.seeds}

    def keep_sound_answers(self) -> int:
        """Leaves in the files what need not be asked for again, and counts it."""
        return sum(
            len(keep_sound_answers(self.answers_path(seed), self.key_of(seed), self.indices)) for seed in self.seeds
        )


@dataclass(frozen=True)
class Serving:
    """What answers: a checkpoint, and how it is served."""

    python: Path
    model_dir: Path
    settings: Mapping[str, Any]

    @property
    def served_name(self) -> str:
        return str(self.settings["flags"].get("served_model_name", DEFAULT_SERVED_NAME))


@dataclass(frozen=True)
class Timing:
    """Seconds until the first question and of asking, and how many answers came in that time, over all starts."""

    startup_s: float
    asking_s: float
    num_asked: int


@dataclass(frozen=True)
class Asked:
    """All answers and verdicts, by seed; answers may still hold failures, which the caller refuses."""

    answers: Mapping[int, list[Answer]]
    judgements: Mapping[int, list[Judgement]]
    timing: Timing


def answers_name(seed: int) -> str:
    return f"answers-{seed}.jsonl"


def is_answers_name(name: str) -> bool:
    return name.startswith("answers-") and name.endswith(".jsonl")


def harness_environment(inherited: Mapping[str, str], task: Task) -> dict[str, str]:
    """Variables of EvalScope: its data and caches lie where we put them, nothing is fetched, requests stay on this machine."""
    kept = {k: v for k, v in inherited.items() if k not in (*_VLMEVALKIT_VARIABLES, *_PROXY_VARIABLES)}
    own = {
        "LMUData": str(task.lmu_data),
        # A TSV, unlike a workbook, does not take an answer that starts with "=" for a formula.
        "PRED_FORMAT": "tsv",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    return {**kept, **own}


def write_task(task: Task, serving: Serving, start_dir: Path) -> Path:
    """What run_vlmevalkit.py and run_native.py read."""
    rounds = [
        {
            "seed": seed,
            "key": task.key_of(seed),
            "answers": str(task.answers_path(seed)),
            "judgements": str(judgements_path(start_dir, seed)),
            "run_dir": str(start_dir / f"seed{seed}"),
        }
        for seed in task.seeds
    ]
    content = {
        "dataset": task.dataset,
        "tsv": str(task.tsv),
        "asked_tsv": str(task.lmu_data / f"{task.dataset}.tsv"),
        "is_original": task.is_original,
        "is_blind": task.is_blind,
        "served_name": serving.served_name,
        "settings": dict(task.settings),
        "indices": sorted(task.indices),
        "begun": str(start_dir / "begun"),
        "rounds": rounds,
    }
    path = start_dir / "task.json"
    write_json_atomically(path, content)
    return path


def judgements_path(start_dir: Path, seed: int) -> Path:
    return start_dir / f"judgements-{seed}.jsonl"


def require_running(harness: subprocess.Popen[bytes], harness_log: Path) -> None:
    """Raises UserError with EvalScope's reason when it has failed."""
    if status := harness.poll():
        reason = last_error(harness_log)
        if reason.startswith("error: "):  # said by the program for the user
            raise UserError(reason.removeprefix("error: "))
        raise UserError(f"{harness_log}: EvalScope ended (exit status {status}): {reason}; see this file")


def wait_until_ready(servers: Sequence[ModelServer], harness: subprocess.Popen[bytes], harness_log: Path) -> None:
    """Returns when all servers answer; raises UserError when one of them or EvalScope has ended."""
    while sum(server.is_ready() for server in servers) < len(
        servers
    ):  # each is looked at, so that any that died is seen
        require_running(harness, harness_log)
        time.sleep(POLL_S)


def watch_answers(
    servers: Sequence[ModelServer], harness: subprocess.Popen[bytes], task: Task, start_dir: Path, log: Log
) -> float:
    """Returns when it began, once EvalScope is through or several questions have failed.

    Raises UserError when a server dies or EvalScope fails.
    """
    started = said = time.monotonic()
    num_before = sum(map(len, task.answers().values()))
    while harness.poll() is None:
        time.sleep(POLL_S)
        for server in servers:
            server.require_alive()
        if not (start_dir / "begun").exists():  # EvalScope is still being imported
            started = said = time.monotonic()
        elif (now := time.monotonic()) - said >= PROGRESS_S:
            said = now
            answers = [answer for of_seed in task.answers().values() for answer in of_seed]
            if sum(map(is_failed, answers)) >= NUM_NAMED:
                return started
            if num_new := len(answers) - num_before:
                rate = num_new / (now - started)
                left_s = (task.num_answers - len(answers)) / rate
                log(f"answered {len(answers)} of {task.num_answers}, {rate:.1f} a second, about {left_s:.0f} s left")
    require_running(harness, start_dir / "evalscope.log")
    return started


def tell(harness: subprocess.Popen[bytes], base_urls: Sequence[str]) -> None:
    """Lets EvalScope begin."""
    assert harness.stdin
    with contextlib.suppress(BrokenPipeError):  # it has ended; what follows says why
        harness.stdin.write(f"{json.dumps(list(base_urls))}\n".encode())
        harness.stdin.flush()


@contextlib.contextmanager
def ready_servers(
    serving: Serving, harness: subprocess.Popen[bytes], task: Task, start_dir: Path, log: Log
) -> Iterator[list[ModelServer]]:
    """One server a replica, each of which has answered a first question about a picture soundly."""
    with contextlib.ExitStack() as stack:
        servers = []
        for number, environment in enumerate(replica_environments(os.environ, serving.settings["num_replicas"])):
            directory = start_dir / f"replica{number}"
            directory.mkdir()
            server = stack.enter_context(
                model_server(serving.python, ROOT, serving.model_dir, serving.settings, environment, directory)
            )
            log(f"the model server is starting, its log is {server.log_path}")
            servers.append(server)
        wait_until_ready(servers, harness, start_dir / "evalscope.log")
        for server in servers:
            server.require_sound_answer(task.smoke_picture)
        yield servers


def ask_once(task: Task, serving: Serving, start_dir: Path, num_kept: int, log: Log) -> Timing:
    """One start: all children from their beginning to their end."""
    start_dir.mkdir()
    num_left = task.num_answers - num_kept
    harness_command = [
        sys.executable,
        str(ROOT / "scripts"),
        HARNESSES[task.backend],
        "--task",
        str(write_task(task, serving, start_dir)),
    ]
    environment = harness_environment(os.environ, task)
    started = time.monotonic()
    with process_group(harness_command, environment, start_dir, start_dir / "evalscope.log") as harness:
        if num_left:
            with ready_servers(serving, harness, task, start_dir, log) as servers:
                log(f"ready after {time.monotonic() - started:.0f} s; asking {num_left} questions")
                tell(harness, [server.base_url for server in servers])
                asking_started = watch_answers(servers, harness, task, start_dir, log)
        else:
            tell(harness, [NOWHERE])
            asking_started = watch_answers([], harness, task, start_dir, log)
    num_asked = sum(map(len, task.answers().values())) - num_kept
    return Timing(asking_started - started, time.monotonic() - asking_started, num_asked)


def ask_all(task: Task, serving: Serving, log: Log) -> Asked:
    """Every question for every seed, those that failed a second time too."""
    timings = []
    for number in range(1, NUM_STARTS + 1):
        start_dir = task.directory / f"start{number}"
        if num_kept := task.keep_sound_answers():
            log(f"{num_kept} of {task.num_answers} questions were answered before and are not asked again")
        timings.append(ask_once(task, serving, start_dir, num_kept, log))
        answers = task.answers()
        failed = [answer for of_seed in answers.values() for answer in of_seed if is_failed(answer)]
        if not failed:
            break
        if number < NUM_STARTS:
            reason = failed[0].error or failed[0].prediction
            log(f"{named({a.index for a in failed})} failed: {reason}; asked again by a server started anew")
    shutil.rmtree(task.lmu_data)  # a copy of the benchmark and its pictures, decoded
    total = Timing(
        *(sum(values) for values in zip(*((t.startup_s, t.asking_s, t.num_asked) for t in timings), strict=True))
    )
    return Asked(answers, {seed: read_judgements(judgements_path(start_dir, seed)) for seed in task.seeds}, total)


def log_paths(directory: Path) -> list[Path]:
    """The logs of all children, in the order of their starts."""
    starts = sorted(directory.glob("start*"))
    return [
        path
        for start in starts
        for path in (*sorted(start.glob("replica*/server.log")), start / "evalscope.log")
        if path.exists()
    ]
