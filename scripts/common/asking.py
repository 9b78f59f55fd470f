"""Asks a served model all questions of a benchmark through EvalScope: starts both, watches both, asks again what failed.

A start is one model server (ms-swift, in its own environment) and one EvalScope (run_vlmevalkit.py, in this one), side by
side. Questions that failed are asked once more by a second start; those answered already, now or before an interruption,
are not asked again (common/answer_log.py). What a start leaves lies in DIRECTORY/start1, start2.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.answer_log import keep_sound_answers, read_answers
from common.child_processes import process_group
from common.errors import UserError
from common.files import write_json_atomically
from common.model_names import NO_CONTROL
from common.model_server import DEFAULT_SERVED_NAME, ModelServer, last_error, model_server
from common.question_records import NUM_NAMED, Answer, Judgement, is_failed, named

if TYPE_CHECKING:  # started below; named here so that what depends on this module depends on it
    import run_vlmevalkit  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent.parent
HARNESS_PATH = ROOT / "scripts" / "run_vlmevalkit.py"
ANSWERS_NAME = "answers.jsonl"
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
Say = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """What is to be asked, in a directory whose `lmu_data` holds the benchmark as it is asked."""

    directory: Path
    key: str  # of everything that decides the answers
    dataset: str  # VLMEvalKit's name
    tsv: Path  # as the user has it
    control: str
    settings: Mapping[str, Any]
    seed: int
    indices: frozenset[str]
    smoke_picture: str  # base64

    @property
    def answers_path(self) -> Path:
        return self.directory / ANSWERS_NAME


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
    """Seconds until the first question and of asking, and how many questions were asked in that time, over all starts."""

    startup_s: float
    asking_s: float
    num_asked: int


def harness_environment(inherited: Mapping[str, str], lmu_data: Path) -> dict[str, str]:
    """Variables of EvalScope: its data lies where we put it, nothing is fetched, requests stay on this machine."""
    kept = {k: v for k, v in inherited.items() if k not in (*_VLMEVALKIT_VARIABLES, *_PROXY_VARIABLES)}
    # A TSV, unlike a workbook, does not take an answer that starts with "=" for a formula.
    own = {"LMUData": str(lmu_data), "PRED_FORMAT": "tsv", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    return {**kept, **own}


def write_task(task: Task, serving: Serving, start_dir: Path) -> Path:
    """What run_vlmevalkit.py reads."""
    content = {
        "dataset": task.dataset,
        "tsv": str(task.tsv),
        "key": task.key,
        "is_control": task.control != NO_CONTROL,
        "is_blind": task.control == "blind",
        "served_name": serving.served_name,
        "settings": dict(task.settings),
        "seed": task.seed,
        "run_dir": str(start_dir),
        "answers": str(task.answers_path),
        "begun": str(start_dir / "begun"),
        "judgements": str(start_dir / "judgements.jsonl"),
    }
    path = start_dir / "task.json"
    write_json_atomically(path, content)
    return path


def require_running(harness: subprocess.Popen[bytes], harness_log: Path) -> None:
    """Raises UserError with EvalScope's reason when it has failed."""
    if status := harness.poll():
        reason = last_error(harness_log)
        if reason.startswith("error: "):  # said by run_vlmevalkit.py for the user
            raise UserError(reason.removeprefix("error: "))
        raise UserError(f"{harness_log}: EvalScope ended (exit status {status}): {reason}; see this file")


def wait_until_ready(server: ModelServer, harness: subprocess.Popen[bytes], harness_log: Path) -> None:
    """Returns when the server answers; raises UserError when either of the two has ended."""
    while not server.is_ready():
        require_running(harness, harness_log)
        time.sleep(POLL_S)


def watch_answers(
    server: ModelServer | None, harness: subprocess.Popen[bytes], task: Task, start_dir: Path, say: Say
) -> float:
    """Returns when it began, once EvalScope is through or several questions have failed.

    Raises UserError when the server dies or EvalScope fails.
    """
    started = said = time.monotonic()
    num_before = len(read_answers(task.answers_path, task.key))
    while harness.poll() is None:
        time.sleep(POLL_S)
        if server:
            server.require_alive()
        if not (start_dir / "begun").exists():  # EvalScope is still being imported
            started = said = time.monotonic()
        elif (now := time.monotonic()) - said >= PROGRESS_S:
            said = now
            answers = read_answers(task.answers_path, task.key)
            if sum(map(is_failed, answers)) >= NUM_NAMED:
                return started
            if num_new := len(answers) - num_before:
                rate = num_new / (now - started)
                left_s = (len(task.indices) - len(answers)) / rate
                say(f"answered {len(answers)} of {len(task.indices)}, {rate:.1f} a second, about {left_s:.0f} s left")
    require_running(harness, start_dir / "evalscope.log")
    return started


def tell(harness: subprocess.Popen[bytes], base_url: str) -> None:
    """Lets EvalScope begin."""
    assert harness.stdin
    with contextlib.suppress(BrokenPipeError):  # it has ended; what follows says why
        harness.stdin.write(f"{base_url}\n".encode())
        harness.stdin.flush()


@contextlib.contextmanager
def ready_server(
    serving: Serving, harness: subprocess.Popen[bytes], task: Task, start_dir: Path, say: Say
) -> Iterator[ModelServer]:
    """A server that has answered a first question about a picture soundly."""
    with model_server(serving.python, ROOT, serving.model_dir, serving.settings, os.environ, start_dir) as server:
        say(f"the model server is starting, its log is {server.log_path}")
        wait_until_ready(server, harness, start_dir / "evalscope.log")
        server.require_sound_answer(task.smoke_picture)
        yield server


def ask_once(task: Task, serving: Serving, start_dir: Path, num_kept: int, say: Say) -> Timing:
    """One start: both children from their beginning to their end."""
    start_dir.mkdir()
    num_left = len(task.indices) - num_kept
    harness_command = [sys.executable, str(HARNESS_PATH), "--task", str(write_task(task, serving, start_dir))]
    environment = harness_environment(os.environ, task.directory / "lmu_data")
    started = time.monotonic()
    with process_group(harness_command, environment, start_dir, start_dir / "evalscope.log") as harness:
        if num_left:
            with ready_server(serving, harness, task, start_dir, say) as server:
                say(f"ready after {time.monotonic() - started:.0f} s; asking {num_left} questions")
                tell(harness, server.base_url)
                asking_started = watch_answers(server, harness, task, start_dir, say)
        else:
            tell(harness, NOWHERE)
            asking_started = watch_answers(None, harness, task, start_dir, say)
    num_asked = len(read_answers(task.answers_path, task.key)) - num_kept
    return Timing(asking_started - started, time.monotonic() - asking_started, num_asked)


def read_judgements(path: Path) -> list[Judgement]:
    """What VLMEvalKit made of the answers; none when it did not come so far."""
    if not path.exists():
        return []
    return [Judgement(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def ask_all(task: Task, serving: Serving, say: Say) -> tuple[list[Answer], list[Judgement], Timing]:
    """Every question, those that failed a second time too; answers may still hold failures, which the caller refuses."""
    timings = []
    for number in range(1, NUM_STARTS + 1):
        start_dir = task.directory / f"start{number}"
        kept = keep_sound_answers(task.answers_path, task.key, task.indices)
        if kept:
            say(f"{len(kept)} of {len(task.indices)} questions were answered before and are not asked again")
        timings.append(ask_once(task, serving, start_dir, len(kept), say))
        answers = read_answers(task.answers_path, task.key)
        failed = [answer for answer in answers if is_failed(answer)]
        if not failed:
            break
        if number < NUM_STARTS:
            reason = failed[0].error or failed[0].prediction
            say(f"{named(a.index for a in failed)} failed: {reason}; asked again by a server started anew")
    shutil.rmtree(task.directory / "lmu_data")  # a copy of the benchmark and its pictures, decoded
    total = Timing(
        *(sum(values) for values in zip(*((t.startup_s, t.asking_s, t.num_asked) for t in timings), strict=True))
    )
    return answers, read_judgements(start_dir / "judgements.jsonl"), total


def log_paths(directory: Path) -> list[Path]:
    """The logs of all children, in the order of their starts."""
    starts = sorted(directory.glob("start*"))
    return [path for start in starts for name in ("server.log", "evalscope.log") if (path := start / name).exists()]
