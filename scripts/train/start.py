"""One start of the trainer: its command and environment, its progress, and why it failed."""

import os
import re
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.common import units
from scripts.common.disk_space import free_bytes, says_no_room
from scripts.common.errors import UserError
from scripts.common.files import read_if_whole, read_json, write_json_atomically
from scripts.common.gpus import may_have_gpus
from scripts.common.logger import log
from scripts.common.processes import this_process
from scripts.common.root import ROOT
from scripts.environments.installed_packages import package_dir
from scripts.train.checkpoint_space import room_remedy
from scripts.train.checkpoints import last_complete, remove_incomplete, step_of
from scripts.train.command import (
    OWNED_VARIABLES,
    RANK_PREFIX,
    SwiftCommand,
    TrainingPaths,
    build_sft_command,
    uses_torchrun,
)
from scripts.train.run import Run
from scripts.train.step_records import read_lines
from scripts.train.tensor_changes import GROUPS
from scripts.train.trainer_process import StopRequests, Trainer, wait_for_ranks

CUSTOM_FREEZING_FLAGS = (
    "freeze_parameters", "freeze_parameters_regex", "freeze_parameters_ratio", "trainable_parameters",
    "trainable_parameters_regex",
)  # fmt: skip

# ms-swift's defaults (swift/arguments/tuner_args.py).
FREEZE_DEFAULTS = {"freeze_vit": True, "freeze_aligner": True, "freeze_llm": False}
SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_BETWEEN_LINES = 5.0
NUM_LOG_LINES_SHOWN = 15

# A disk with less is full: not even the log that would say so can grow much.
FULL_DISK_BYTES = 2**20

# Between choosing a port and using it somebody else may take it; that this happens again and again is another fault.
NUM_PORTS_TRIED = 3

# What torch.distributed.run (2.13) ends with then; its warnings of the same error lack the colon.
MEETING_ERROR = re.compile(r"^[\w.]*RendezvousConnectionError: ", re.MULTILINE)

# Agents must ignore a signal sent to everybody, as the local one does (common/process_group.py). The first node's agent is told
# that it is the host: if it found out by itself it would take whoever listens at that port for the host, and wait.
NODE_SHELL = """
trap "" TERM INT HUP
if [ "$SLURM_NODEID" = 0 ]; then is_host=1; else is_host=0; fi
export PET_RDZV_CONF=is_host=$is_host
exec "$@"
"""

# The last line of a Python traceback, with or without the rank before it; torch names it, too, and then it is there twice.
EXCEPTION_LINE = re.compile(r"^(\[rank\d+\]:\s*)*[\w.]+(Error|Exception|Interrupt|Exit)\b.*")


def num_gpus(python: Path, environment: Mapping[str, str]) -> int:
    """How many GPUs a trainer with this environment sees. Asks torch, in a process of its own, where there may be one."""
    if not may_have_gpus(environment):
        return 0
    code = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
    result = subprocess.run([python, "-c", code], env=dict(environment), capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(
            f"{python}: torch cannot be imported ({reason}); remove {python.parent.parent}.ok and build it again"
        )
    return int(result.stdout.split()[-1])


def inherited_environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """Ours, without what would make ms-swift believe that it is one of somebody's ranks."""
    environment = {name: value for name, value in os.environ.items() if name not in OWNED_VARIABLES}
    environment = {name: value for name, value in environment.items() if not name.startswith("TORCHELASTIC_")}
    return environment | {name: str(value) for name, value in settings["environment"].items()}


def num_cpus_per_task() -> int:
    """Of this Slurm job; Snakemake's plugin removes Slurm's variable of it."""
    command = ["scontrol", "--oneliner", "show", "job", os.environ["SLURM_JOB_ID"]]
    shown = subprocess.run(command, capture_output=True, text=True)
    number = re.search(r"\bCPUs/Task=(\d+)", shown.stdout)
    if number is None:
        reason = shown.stderr.strip() or "no CPUs/Task in its answer"
        raise UserError(f"{' '.join(command)}: failed ({reason}); expected this job; give the same command again")
    return int(number.group(1))


def node_launcher(stage: str, num_nodes: int) -> tuple[list[str], str]:
    """What starts torchrun on every node of this Slurm job, and where the ranks meet. Nothing for one node."""
    if num_nodes == 1:
        return [], "127.0.0.1:0"
    if "SLURM_JOB_ID" not in os.environ:
        raise UserError(
            f"{stage}.num_nodes: {num_nodes} found, but this is no Slurm job; start it by one, or set num_nodes: 1"
        )
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    shell = ["sh", "-c", NODE_SHELL, "sh"]
    tasks = [f"--nodes={num_nodes}", f"--ntasks={num_nodes}", "--ntasks-per-node=1"]
    cpus = f"--cpus-per-task={num_cpus_per_task()}"  # srun does not take over the job's own number
    launcher = ["srun", "--overlap", *tasks, cpus, "--cpu-bind=none", "--kill-on-bad-exit=1", *shell]
    return launcher, f"{socket.gethostname()}:{port}"


def without_slurm_options(environment: Mapping[str, str]) -> dict[str, str]:
    """Our own srun must not take options from the step that we are in."""
    kept = ("SLURM_JOB_ID", "SLURM_CONF")
    return {k: v for k, v in environment.items() if k in kept or not k.startswith(("SLURM_", "SRUN_", "SBATCH_"))}


def prepare_start(run: Run, resume_from: Path | None) -> tuple[SwiftCommand, dict[str, str]]:
    """Writes what the callback must know, clears what an earlier start left, and gives command and environment."""
    for name in ("begin.json", "progress.json", "stop"):
        (run.watch_dir / name).unlink(missing_ok=True)
    for path in [*run.watch_dir.glob("failure-*.json"), *run.watch_dir.glob("rank*.json")]:
        path.unlink()
    # A compilation that was killed leaves a lock for which torch would wait for ever; nobody else is here now.
    for path in (run.run_dir / "cache").glob("torch_extensions/**/lock"):
        path.unlink()

    flags = run.settings["flags"]
    watch_settings_path = run.watch_dir / "settings.json"
    write_json_atomically(
        watch_settings_path,
        {name: flags.get(name, default) for name, default in FREEZE_DEFAULTS.items()}
        | {
            "deepspeed": run.settings["deepspeed"],
            "custom_freezing": any(flags.get(name) for name in CUSTOM_FREEZING_FLAGS),
            "watch_dir": str(run.watch_dir),
            "stop_file": str(run.watch_dir / "stop"),
            "launcher": this_process(),
            "model_dir": str(run.model_dir),
            "dataset": str(run.dataset),
            "num_rows": run.num_rows,
            "resume_from": str(resume_from) if resume_from else None,
        },
    )
    environment = inherited_environment(run.settings)
    gpus = num_gpus(run.python, environment)
    num_processes = run.settings["num_processes_per_node"]
    if 0 < gpus < num_processes:
        raise UserError(
            f"{run.stage}.num_processes_per_node: {num_processes} found, at most {gpus} expected, one for each GPU here"
        )
    launcher, rendezvous = node_launcher(run.stage, run.settings["num_nodes"])
    command = build_sft_command(
        run.stage,
        run.settings,
        run.model_config,
        TrainingPaths(
            python=run.python,
            sft_script=package_dir(run.python, "swift") / "cli" / "sft.py",
            model_plugin=ROOT / "model" / "qwen2_5_vl_qwen3" / "swift_plugin.py",
            watch_plugin=ROOT / "scripts" / "train" / "watch.py",
            model_dir=run.model_dir,
            dataset=run.dataset,
            output_dir=run.trainer_dir,
            cache_dir=run.run_dir / "cache",
            rank_logs_dir=run.rank_logs_dir,
            watch_settings=watch_settings_path,
        ),
        seed=run.seed,
        device="cuda" if gpus else "cpu",
        resume_from=resume_from,
        first_gpu=environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
        rendezvous=rendezvous,
        rendezvous_id=f"start{len(list(read_lines(run.attempts_path)))}-{uuid.uuid4().hex[:12]}",
        node_launcher=launcher,
    )
    if launcher:
        environment = without_slurm_options(environment)
    return command, environment | command.environment


class MeetingFailed(UserError):
    """The nodes' agents did not find each other, as where their port was taken by somebody else meanwhile."""


class ProgressLine:
    """Says every few seconds how far the training is."""

    def __init__(self, stage: str, watch_dir: Path) -> None:
        self.stage, self.watch_dir = stage, watch_dir
        self.started_s = time.monotonic()
        self.next_line_s = self.started_s + SECONDS_BETWEEN_LINES
        self.seen: tuple[float, int, int] | None = None  # time, step, samples when training began
        self.has_begun = False

    def look(self) -> None:
        progress = read_if_whole(self.watch_dir / "progress.json")
        begin = read_if_whole(self.watch_dir / "begin.json")
        now_s = time.monotonic()
        if begin and not self.has_begun:
            self.has_begun = True
            self.seen = (now_s, begin["first_step"], 0)
            log(f"{self.stage}: every weight is the input's, bit for bit")
            log(f"{self.stage}: each checkpoint takes at least {units.size(begin['checkpoint_bytes'])} on the disk")
            for group in GROUPS:
                trainable, total = begin["num_trainable_parameters"][group], begin["num_parameters"][group]
                mark = "[TRAINABLE]" if trainable else "[FROZEN]   "
                log(f"{self.stage}: {mark} {group}: {trainable:,} of {total:,} parameters train")
        if now_s >= self.next_line_s:
            self.next_line_s = now_s + SECONDS_BETWEEN_LINES
            log(f"{self.stage}: {self.line(progress, now_s)}")

    def line(self, progress: Mapping[str, Any], now_s: float) -> str:
        if self.seen is None or "step" not in progress:
            return f"{progress.get('phase', 'ms-swift is starting')} ({now_s - self.started_s:.0f} s)"
        begun_s, first_step, _ = self.seen
        step, max_steps = progress["step"], progress["max_steps"]
        elapsed_s, num_done = now_s - begun_s, step - first_step
        text = f"{progress['phase']}, step {step}/{max_steps}"
        if "loss" in progress:
            text += f", loss {progress['loss']:.4f}"
        if num_done and elapsed_s > 0:
            rest_s = elapsed_s / num_done * (max_steps - step)
            text += f", {progress['num_samples'] / elapsed_s:.1f} samples/s, about {units.duration(rest_s)} left"
        return text


def run_trainer(run: Run, resume_from: Path | None, stop: StopRequests) -> list[str]:
    """Runs ms-swift until it ends, by itself or because a stop was asked for. Gives the command.

    Raises UserError when it failed; whether it has finished is for the checkpoints to say.
    """
    command, environment = prepare_start(run, resume_from)
    write_json_atomically(run.run_dir / "command.json", command.argv)
    run.log.parent.mkdir(parents=True, exist_ok=True)
    with open(run.log, "ab") as log_file:
        start = log_file.tell()
        log_file.write(f"=== {time.strftime('%Y-%m-%d %H:%M:%S')} {run.stage}: {' '.join(command.argv)}\n".encode())
        log_file.flush()
        log(f"{run.stage}: starting ms-swift; its output goes to {run.log}")
        trainer = Trainer(command.argv, environment, log_file, has_agent=uses_torchrun(run.settings))
        progress = ProgressLine(run.stage, run.watch_dir)
        is_stopping = was_killed = False
        while trainer.exit_code is None:
            progress.look()
            if stop() and not is_stopping:
                is_stopping = True
                (run.watch_dir / "stop").touch()
                if (run.watch_dir / "begin.json").exists():
                    log(f"{run.stage}: stopping after the step in hand (Ctrl-C again in 5 s stops at once)")
                else:
                    log(f"{run.stage}: stopping before the first step")
                    trainer.end_before_training()
            if stop.is_urgent and not was_killed:
                was_killed = True
                log(f"{run.stage}: stopping at once")
                trainer.kill(list(map(read_if_whole, run.watch_dir.glob("rank*.json"))))
            time.sleep(SECONDS_BETWEEN_LOOKS)
    progress.look()
    wait_for_ranks(run.run_dir, lambda: stop.is_urgent)
    if trainer.exit_code and not stop():
        if cut_off := cut_off_message(run, start):
            raise UserError(cut_off)
        kind = MeetingFailed if could_not_meet(run, start) else UserError
        raise kind(failure_message(run, trainer.exit_code, start))
    return command.argv


def cut_off_message(run: Run, log_start: int) -> str | None:
    """Where a full disk has cut a checkpoint off: removes it, since the disk would stay full, and says so. Else None."""
    is_full = free_bytes(run.run_dir) < FULL_DISK_BYTES or any(map(says_no_room, output_since(run, log_start)))
    removed = remove_incomplete(run.trainer_dir) if is_full else []
    if not removed:
        return None
    num_bytes = read_json(run.watch_dir / "begin.json")["checkpoint_bytes"]
    last = last_complete(run.trainer_dir)
    remedy = room_remedy(f"{run.stage}.flags.save_total_limit", run.settings["flags"].get("save_total_limit"))
    goes_on = f"goes on from step {step_of(last)}" if last else "begins anew"
    return (
        f"{run.stage}: {removed[-1]}: there was no room to write it, on the disk or in a quota; removed again, which leaves "
        f"{units.size(free_bytes(run.run_dir))} free on the disk; a checkpoint takes at least {units.size(num_bytes)}; "
        f"{remedy}; then give the same command again, which {goes_on} (all output: {run.log})"
    )


def could_not_meet(run: Run, log_start: int) -> bool:
    """Whether this start ended before any rank began, because the agents could not meet."""
    began = any(run.watch_dir.glob("rank*.json"))
    return not began and any(MEETING_ERROR.match(line) for line in output_since(run, log_start))


def output_since(run: Run, log_start: int) -> list[str]:
    """The lines of a start's output; `log_start` is the log's size before it, in bytes."""
    with open(run.log, "rb") as log_file:
        log_file.seek(log_start)
        return log_file.read().decode(errors="replace").splitlines()


def failure_message(run: Run, exit_code: int, log_start: int) -> str:
    """Why the trainer ended: the word of the rank that failed first, if it left one, and the last lines of its output."""
    failures = [read_if_whole(path) for path in run.watch_dir.glob("failure-*.json")]
    failures = sorted((failure for failure in failures if failure), key=lambda failure: failure["time_s"])
    if failures and failures[0]["is_user_error"]:
        return f"{run.stage}: {failures[0]['message']} (all output: {run.log})"
    lines = output_since(run, log_start)
    exceptions = [line for line in lines if EXCEPTION_LINE.match(line)]
    reason = failures[0]["message"] if failures else exceptions[0] if exceptions else ""
    how = f"signal {-exit_code}" if exit_code < 0 else f"exit status {exit_code}"
    own = [line for line in lines if failures and line.startswith(RANK_PREFIX.format(failures[0]["rank"]))]
    tail = "\n".join(f"  {line}" for line in (own or lines)[-NUM_LOG_LINES_SHOWN:])
    ranks = f"; of each rank: {run.rank_logs_dir}" if run.rank_logs_dir.exists() else ""
    return f"{run.stage}: ms-swift ended with {how}: {reason}\n{tail}\n  all output: {run.log}{ranks}"


def run_trainer_at_some_port(run: Run, resume_from: Path | None, stop: StopRequests) -> list[str]:
    """Runs the trainer, again at another port where the nodes could not meet. Gives the command."""
    for number in range(1, NUM_PORTS_TRIED + 1):
        try:
            return run_trainer(run, resume_from, stop)
        except MeetingFailed:
            if number == NUM_PORTS_TRIED:
                raise
            log(f"{run.stage}: the nodes could not meet; trying another port")
    raise AssertionError("every try returns or raises")
