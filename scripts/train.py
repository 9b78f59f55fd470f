"""Trains one stage with ms-swift (`swift sft`), resumes it after any interruption, proves what it did, exports the model.

The trainer's checkpoints live in WORK_DIR/SIGNATURE, where the signature covers all that determines the result:
settings, seed, model, training set, versions. The same command goes on from the last whole checkpoint of its own
signature; another signature's is never touched. On SIGTERM or Ctrl-C the trainer saves after the step in hand and stops
(Ctrl-C again, 5 s later, ends it at once); the exit status is then 1, because nothing is finished. Finished means that
global_step equals max_steps in the last checkpoint; the exit status of the trainer does not say that.

What is proven, or the program fails: every weight at the beginning is the input's, bit for bit; exactly what the freeze
flags leave free has changed; no row was dropped or counted twice; losses go on after a resume. Then OUTPUT_DIR/checkpoint
(loadable as it stands) appears whole, and after it OUTPUT_DIR/metrics.json.

By hand:
  .venv/bin/python scripts/train.py --stage stage1 --model-dir results/demo/graft \
    --train-python .venvs/train/bin/python --dataset results/demo/data/stage1.jsonl --seed 0 --work-dir work/results/demo/stage1 \
    --output-dir results/demo/stage1 --log logs/stage1.log --settings '{"num_nodes": 1, "num_processes_per_node": 1,
    "deepspeed": null, "environment": {}, "flags": {"freeze_vit": true, "freeze_llm": true, "freeze_aligner": false,
    "learning_rate": 0.001, "max_steps": 100, "save_steps": 50, "per_device_train_batch_size": 16}}'
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.checkpoint_files import (
    dataset_sha256,
    last_complete,
    model_sha256,
    publish_checkpoint,
    remove_incomplete,
    step_of,
    trainer_state,
)
from common.checkpoint_space import room_remedy
from common.disk_space import free_bytes, in_units, says_no_room
from common.errors import UserError, run_program
from common.files import read_if_whole, read_json, write_json_atomically
from common.gpus import may_have_gpus
from common.installed_packages import package_dir, versions_in
from common.local_paths import without_local_paths
from common.process_group import StopRequests, Trainer, exclusive_work_dir, say, this_process, wait_for_ranks
from common.safetensors_files import read_checkpoint
from common.swift_command import (
    DTYPES,
    OWNED_VARIABLES,
    RANK_PREFIX,
    SwiftCommand,
    TrainingPaths,
    build_sft_command,
    check_settings,
    model_type,
    torch_dtype,
    uses_torchrun,
)
from common.tensor_changes import GROUPS, TensorChange, check_changes, compare_checkpoints, name_in_memory
from common.training_records import (
    StepRecord,
    duration,
    loss_goes_on,
    loss_limit,
    losses_of,
    read_lines,
    read_steps,
    step_times,
    steps_path,
)

if TYPE_CHECKING:  # loaded by ms-swift; named here so that what depends on this program depends on it
    from common import training_watch  # noqa: F401

# Flags without any influence on the weights: changing them goes on with the same training.
FLAGS_WITHOUT_INFLUENCE = frozenset({
    "save_steps", "save_strategy", "save_total_limit", "logging_steps", "logging_strategy", "logging_first_step",
    "report_to", "dataset_num_proc", "dataloader_num_workers", "dataloader_prefetch_factor",
    "dataloader_persistent_workers", "dataloader_pin_memory", "disable_tqdm", "logging_dir", "run_name", "ddp_timeout",
})  # fmt: skip
CUSTOM_FREEZING_FLAGS = (
    "freeze_parameters", "freeze_parameters_regex", "freeze_parameters_ratio", "trainable_parameters",
    "trainable_parameters_regex",
)  # fmt: skip
# ms-swift's defaults (swift/arguments/tuner_args.py).
FREEZE_DEFAULTS = {"freeze_vit": True, "freeze_aligner": True, "freeze_llm": False}

VERSIONED_PACKAGES = ("ms-swift", "torch", "transformers", "deepspeed")
# Where installed; which of them computes is for the flags to say.
OPTIONAL_PACKAGES = ("flash-attn", "liger-kernel")
SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_BETWEEN_LINES = 5.0
NUM_LOG_LINES_SHOWN = 15
# A disk with less is full: not even the log that would say so can grow much.
FULL_DISK_BYTES = 2**20
# A first failure may be a node's; a second one at the same step is the training's own.
NUM_STARTS_IN_VAIN = 2
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


@dataclass(frozen=True)
class Run:
    """One training run: where it lives, and what it is a training of."""

    stage: str
    settings: Mapping[str, Any]
    seed: int
    model_dir: Path
    model_config: Mapping[str, Any]
    dataset: Path
    num_rows: int
    run_dir: Path  # WORK_DIR/SIGNATURE
    log: Path
    python: Path  # of the environment that trains

    @property
    def trainer_dir(self) -> Path:
        return self.run_dir / "trainer"

    @property
    def watch_dir(self) -> Path:
        return self.run_dir / "watch"

    @property
    def rank_logs_dir(self) -> Path:
        return self.run_dir / "rank_logs"

    @property
    def attempts_path(self) -> Path:
        return self.run_dir / "attempts.jsonl"

    @property
    def failures_path(self) -> Path:
        return self.run_dir / "failures.jsonl"


def signature_of(settings: Mapping[str, Any], seed: int, model: str, dataset: str, versions: Mapping[str, str]) -> str:
    """What determines the trained weights, as 16 hexadecimal digits."""
    flags = {name: value for name, value in settings["flags"].items() if name not in FLAGS_WITHOUT_INFLUENCE}
    keys = ("num_nodes", "num_processes_per_node", "deepspeed", "environment")
    parts = {key: settings[key] for key in keys} | {"flags": flags, "seed": seed, "model": model, "dataset": dataset}
    text = json.dumps(parts | {"versions": dict(versions)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_dtype(stage: str, settings: Mapping[str, Any], model_config: Mapping[str, Any], model_dir: Path) -> None:
    """Raises UserError when the trained weights could not have the dtypes of the input's."""
    dtype = torch_dtype(stage, settings, model_config)
    for tensor in read_checkpoint(model_dir).values():
        if tensor.dtype != DTYPES[dtype]:
            raise UserError(
                f"{stage}.flags.torch_dtype: {dtype} found, but {tensor.name} in {model_dir} is {tensor.dtype}; "
                "train in the checkpoint's own dtype"
            )


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
    repository = Path(__file__).resolve().parents[1]
    launcher, rendezvous = node_launcher(run.stage, run.settings["num_nodes"])
    command = build_sft_command(
        run.stage,
        run.settings,
        run.model_config,
        TrainingPaths(
            python=run.python,
            sft_script=package_dir(run.python, "swift") / "cli" / "sft.py",
            model_plugin=repository / "model" / "qwen2_5_vl_qwen3" / "swift_plugin.py",
            watch_plugin=repository / "scripts" / "common" / "training_watch.py",
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
            say(f"{self.stage}: every weight is the input's, bit for bit")
            say(f"{self.stage}: each checkpoint takes at least {in_units(begin['checkpoint_bytes'])} on the disk")
            for group in GROUPS:
                trainable, total = begin["num_trainable_parameters"][group], begin["num_parameters"][group]
                mark = "[TRAINABLE]" if trainable else "[FROZEN]   "
                say(f"{self.stage}: {mark} {group}: {trainable:,} of {total:,} parameters train")
        if now_s >= self.next_line_s:
            self.next_line_s = now_s + SECONDS_BETWEEN_LINES
            say(f"{self.stage}: {self.line(progress, now_s)}")

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
            text += f", {progress['num_samples'] / elapsed_s:.1f} samples/s, about {duration(rest_s)} left"
        return text


def run_trainer(run: Run, resume_from: Path | None, stop: StopRequests) -> list[str]:
    """Runs ms-swift until it ends, by itself or because a stop was asked for. Gives the command.

    Raises UserError when it failed; whether it has finished is for the checkpoints to say.
    """
    command, environment = prepare_start(run, resume_from)
    write_json_atomically(run.run_dir / "command.json", command.argv)
    run.log.parent.mkdir(parents=True, exist_ok=True)
    with open(run.log, "ab") as log:
        start = log.tell()
        log.write(f"=== {time.strftime('%Y-%m-%d %H:%M:%S')} {run.stage}: {' '.join(command.argv)}\n".encode())
        log.flush()
        say(f"{run.stage}: starting ms-swift; its output goes to {run.log}")
        trainer = Trainer(command.argv, environment, log, has_agent=uses_torchrun(run.settings))
        progress = ProgressLine(run.stage, run.watch_dir)
        is_stopping = was_killed = False
        while trainer.exit_code is None:
            progress.look()
            if stop() and not is_stopping:
                is_stopping = True
                (run.watch_dir / "stop").touch()
                if (run.watch_dir / "begin.json").exists():
                    say(f"{run.stage}: stopping after the step in hand (Ctrl-C again in 5 s stops at once)")
                else:
                    say(f"{run.stage}: stopping before the first step")
                    trainer.end_before_training()
            if stop.is_urgent and not was_killed:
                was_killed = True
                say(f"{run.stage}: stopping at once")
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
        f"{in_units(free_bytes(run.run_dir))} free on the disk; a checkpoint takes at least {in_units(num_bytes)}; "
        f"{remedy}; then give the same command again, which {goes_on} (all output: {run.log})"
    )


def could_not_meet(run: Run, log_start: int) -> bool:
    """Whether this start ended before any rank began, because the agents could not meet."""
    began = any(run.watch_dir.glob("rank*.json"))
    return not began and any(MEETING_ERROR.match(line) for line in output_since(run, log_start))


def output_since(run: Run, log_start: int) -> list[str]:
    """The lines of a start's output; `log_start` is the log's size before it, in bytes."""
    with open(run.log, "rb") as log:
        log.seek(log_start)
        return log.read().decode(errors="replace").splitlines()


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


def check_progress(run: Run, attempt: int, step: int) -> None:
    """Raises UserError when this command has started the trainer in vain too often to try once more.

    `attempt` counts from 1 each time a person gives the command; the scheduler's resubmissions raise it.
    """
    # A job that Slurm has put back starts several times, and this job may be one. Without Slurm each start is a job.
    last_of_job = {start["slurm_job_id"] or number: start for number, start in enumerate(read_lines(run.attempts_path))}
    last_of_job.pop(os.environ.get("SLURM_JOB_ID"), None)
    own_starts = list(last_of_job.values())[1 - attempt :] if attempt > 1 else []
    num_in_vain = sum(start["resume_step"] == step for start in own_starts)
    if num_in_vain < NUM_STARTS_IN_VAIN:
        return
    failures = list(read_lines(run.failures_path))
    since_s = own_starts[-1]["start_time_s"]
    reason = (
        failures[-1]["message"]
        if failures and failures[-1]["time_s"] >= since_s
        else ("the last one ended without a word, as a process does that is killed for want of memory or with its node")
    )
    raise UserError(
        f"{run.stage}: {num_in_vain} starts in a row came to no checkpoint beyond step {step}, so this one was not made; "
        f"expected a checkpoint in each job; save more often (save_steps), ask for more time or memory, or mend what the "
        f"last one said, then give the same command again. It said: {reason}"
    )


def train(run: Run, stop: StopRequests, attempt: int) -> tuple[Path, list[str]]:
    """Trains until finished; gives the last checkpoint and the command. Raises UserError when stopped before."""
    for path in remove_incomplete(run.trainer_dir):
        say(f"{run.stage}: removed {path}, which was cut off while it was written")
    checkpoint = last_complete(run.trainer_dir)
    if checkpoint is None:
        # Step records of a start that never came to a checkpoint belong to no training.
        for path in (run.watch_dir / "begin.json", *run.watch_dir.glob("steps-*.jsonl")):
            path.unlink(missing_ok=True)
    elif is_finished(checkpoint):
        say(f"{run.stage}: already trained to step {step_of(checkpoint)}; checking and exporting")
        return checkpoint, list(read_json(run.run_dir / "command.json"))
    else:
        say(f"{run.stage}: going on from step {step_of(checkpoint)}")
    check_progress(run, attempt, step_of(checkpoint) if checkpoint else 0)
    try:
        return train_to_the_end(run, checkpoint, stop)
    except UserError as error:
        with (
            contextlib.suppress(OSError),  # on a full disk; what is raised says so
            open(run.failures_path, "a", encoding="utf-8") as failures,
        ):
            failures.write(json.dumps({"time_s": time.time(), "message": str(error)}) + "\n")
        raise


def record_start(run: Run, resume_from: Path | None) -> None:
    """Adds a line to the record of the trainer's starts."""
    with open(run.attempts_path, "a", encoding="utf-8") as attempts:
        attempt = {
            "start_time_s": time.time(),
            "resume_step": step_of(resume_from) if resume_from else 0,
            "host": socket.gethostname(),
            "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        }
        attempts.write(json.dumps(attempt) + "\n")


def run_trainer_at_some_port(run: Run, resume_from: Path | None, stop: StopRequests) -> list[str]:
    """Runs the trainer, again at another port where the nodes could not meet. Gives the command."""
    for number in range(1, NUM_PORTS_TRIED + 1):
        try:
            return run_trainer(run, resume_from, stop)
        except MeetingFailed:
            if number == NUM_PORTS_TRIED:
                raise
            say(f"{run.stage}: the nodes could not meet; trying another port")
    raise AssertionError("every try returns or raises")


def train_to_the_end(run: Run, resume_from: Path | None, stop: StopRequests) -> tuple[Path, list[str]]:
    """Starts the trainer once; gives the last checkpoint and the command. Raises UserError when there are steps left."""
    record_start(run, resume_from)
    argv = run_trainer_at_some_port(run, resume_from, stop)
    checkpoint = last_complete(run.trainer_dir)
    if checkpoint is None or not is_finished(checkpoint):
        where = f"saved at step {step_of(checkpoint)} of {trainer_state(checkpoint)['max_steps']}" if checkpoint else ""
        if stop():
            raise UserError(
                f"{run.stage}: stopped by {signal.Signals(stop.received[0]).name}; {where or 'no step was saved yet'}; "
                "the same command goes on from there"
            )
        raise UserError(
            f"{run.stage}: ms-swift ended without an error, but not at the last step "
            f"({where or 'no checkpoint'}); see {run.log}; the same command goes on from there"
        )
    return checkpoint, argv


def is_finished(checkpoint: Path) -> bool:
    state = trainer_state(checkpoint)
    return bool(state["global_step"] == state["max_steps"] == step_of(checkpoint))


def all_step_records(run: Run, begin: Mapping[str, Any]) -> list[dict[int, StepRecord]]:
    """Each rank's records. Raises UserError when a rank has none for some step."""
    ranks = [read_steps(steps_path(run.watch_dir, rank), begin["max_steps"]) for rank in range(begin["num_processes"])]
    for rank, records in enumerate(ranks):
        if missing := set(range(1, begin["max_steps"] + 1)) - records.keys():
            raise UserError(
                f"{steps_path(run.watch_dir, rank)}: no record of step {min(missing)} ({len(missing)} such); "
                "the samples cannot be counted; was the file changed?"
            )
    return ranks


def check_samples(stage: str, ranks: Sequence[Mapping[int, StepRecord]], expected: Sequence[int]) -> int:
    """The number of samples that went through the model. Raises UserError when a step saw another number than dealt."""
    seen = 0
    for step, num_expected in enumerate(expected, start=1):
        num_seen = sum(records[step].num_samples for records in ranks)
        if num_seen != num_expected:
            raise UserError(
                f"{stage}: step {step} saw {num_seen} samples, {num_expected} expected; "
                "rows were dropped or repeated on their way into the model"
            )
        seen += num_seen
    return seen


def check_resumes(run: Run, losses: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The losses around each resume. Raises UserError when one does not go on."""
    resumes = []
    # A start that came to nothing is followed by another one at the same step.
    for step in sorted({attempt["resume_step"] for attempt in read_lines(run.attempts_path)}):
        before = [entry["loss"] for entry in losses if entry["step"] <= step]
        after = [entry["loss"] for entry in losses if entry["step"] > step]
        if step == 0 or not before or not after:
            continue
        if not loss_goes_on(before, after[0]):
            raise UserError(
                f"{run.stage}: the loss after the resume at step {step} is {after[0]:.4f}, "
                f"at most {loss_limit(before):.4f} expected from those before; see {run.log}"
            )
        resumes.append({"step": step, "loss_before": before[-1], "loss_after": after[0]})
    return resumes


def wall_time_s(run: Run) -> float:
    """Seconds that the trainer ran over all starts: to the last step of each, so a killed one counts too."""
    starts = [attempt["start_time_s"] for attempt in read_lines(run.attempts_path)]
    ends = [line["end_time_s"] for line in read_lines(steps_path(run.watch_dir, 0))]
    total = 0.0
    for start, following in zip(starts, [*starts[1:], float("inf")], strict=True):
        within = [end for end in ends if start <= end < following]
        total += max(within) - start if within else 0.0
    return total


def by_group(changes: Sequence[TensorChange], *, only_changed: bool) -> dict[str, int]:
    return {g: sum(c.group == g and (c.changed or not only_changed) for c in changes) for g in GROUPS}


def finish(run: Run, checkpoint: Path, argv: list[str], output_dir: Path, versions: Mapping[str, str]) -> None:
    """Proves the training, then publishes checkpoint and metrics."""
    begin = read_json(run.watch_dir / "begin.json")
    state = trainer_state(checkpoint)
    if state["max_steps"] != begin["max_steps"]:
        raise UserError(f"{checkpoint}: max_steps {state['max_steps']} found, {begin['max_steps']} expected")
    ranks = all_step_records(run, begin)
    num_samples = check_samples(run.stage, ranks, begin["samples_per_step"])
    losses = losses_of(state["log_history"])
    resumes = check_resumes(run, losses)

    say(f"{run.stage}: comparing every tensor with the input's")
    trainable_in_memory = set(begin["trainable"])
    changes = list(compare_checkpoints(run.model_dir, checkpoint))
    trainable = {change.name: name_in_memory(change.name) in trainable_in_memory for change in changes}
    unchanged = check_changes(run.stage, changes, trainable)
    for group in GROUPS:
        num_changed = sum(change.changed for change in changes if change.group == group)
        say(f"{run.stage}: {group}: {num_changed} of {by_group(changes, only_changed=False)[group]} tensors changed")
    if unchanged:
        say(f"{run.stage}: {len(unchanged)} trained tensors kept their bits (updates below 16-bit rounding)")

    settings = without_local_paths({"stage": run.stage, "seed": run.seed, **run.settings})
    published = publish_checkpoint(checkpoint, run.model_dir, output_dir / "checkpoint", settings)
    first_rank = list(ranks[0].values())
    num_tokens = sum(record.num_tokens for records in ranks for record in records.values())
    num_processes = begin["num_processes"]
    metrics = {
        "stage": run.stage,
        "num_steps": state["global_step"],
        "num_processes": num_processes,
        "num_rows": run.num_rows,
        "num_rows_left_out_each_epoch": run.num_rows % num_processes,
        "num_samples_seen": num_samples,
        "num_samples_expected": sum(begin["samples_per_step"]),
        "num_tokens_seen": num_tokens,
        "num_parameters": begin["num_parameters"],
        "num_trainable_parameters": begin["num_trainable_parameters"],
        "tensors_changed": by_group(changes, only_changed=True),
        "tensors_total": by_group(changes, only_changed=False),
        "tensors_trained_but_unchanged": unchanged,
        "first_loss": losses[0]["loss"] if losses else None,
        "last_loss": losses[-1]["loss"] if losses else None,
        "losses": losses,
        "step_time_s": step_times(first_rank),
        "num_tokens_per_s": round(num_tokens / sum(record.step_time_s for record in first_rank), 3),
        "peak_gpu_memory_gib": max(
            (r.peak_gpu_memory_gib for records in ranks for r in records.values() if r.peak_gpu_memory_gib is not None),
            default=None,
        ),
        "wall_time_s": round(wall_time_s(run), 3),
        "resumes": resumes,
        "versions": dict(versions),
        "command": argv,
        "signature": run.run_dir.name,
        "checkpoint_sha256": model_sha256(output_dir / "checkpoint"),
    }
    write_json_atomically(output_dir / "metrics.json", metrics)
    say(f"{run.stage}: {num_samples} samples in {state['global_step']} steps; {len(published)} files exported")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stage", required=True, choices=("stage1", "stage2"))
    parser.add_argument("--model-dir", required=True, type=Path, help="checkpoint to start from")
    parser.add_argument("--dataset", required=True, type=Path, help="training set: one jsonl of messages and images")
    parser.add_argument("--settings", required=True, type=json.loads, help="the stage's section of the configuration")
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--work-dir", required=True, type=Path, help="checkpoints and records of unfinished training")
    parser.add_argument("--output-dir", required=True, type=Path, help="gets checkpoint/ and metrics.json")
    parser.add_argument("--log", required=True, type=Path, help="ms-swift's output, appended to")
    parser.add_argument("--train-python", required=True, type=Path, help="interpreter of the environment that trains")
    parser.add_argument(
        "--attempt", type=int, default=1, help="how often the workflow has submitted this, with this one"
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    stage, settings = arguments.stage, arguments.settings
    model_dir, dataset = arguments.model_dir.resolve(), arguments.dataset.resolve()
    check_settings(stage, settings)
    model_config = read_json(model_dir / "config.json")
    model_type(model_config)
    check_dtype(stage, settings, model_config, model_dir)
    if not dataset.is_file():
        raise UserError(f"{dataset}: not found; expected the training set of {stage} as jsonl")

    say(f"{stage}: hashing model and training set")
    python = arguments.train_python.absolute()  # not resolved: a virtual environment's interpreter is a link
    versions = versions_in(python, VERSIONED_PACKAGES, OPTIONAL_PACKAGES)
    dataset_digest, num_rows = dataset_sha256(dataset)
    signature = signature_of(settings, arguments.seed, model_sha256(model_dir), dataset_digest, versions)
    run = Run(
        stage=stage,
        settings=settings,
        seed=arguments.seed,
        model_dir=model_dir,
        model_config=model_config,
        dataset=dataset,
        num_rows=num_rows,
        run_dir=arguments.work_dir.resolve() / signature,
        log=arguments.log.resolve(),
        python=python,
    )
    say(f"{stage}: {num_rows} rows; work directory {run.run_dir}")
    others = [path for path in arguments.work_dir.glob("*/trainer") if path.parent.name != signature]
    if others:
        say(f"{stage}: {len(others)} training(s) of other settings or inputs beside it stay as they are")
    with StopRequests().listening() as stop, exclusive_work_dir(run.run_dir, stop):
        run.watch_dir.mkdir(exist_ok=True)
        checkpoint, argv = train(run, stop, arguments.attempt)
        finish(run, checkpoint, argv, arguments.output_dir.resolve(), versions)


if __name__ == "__main__":
    run_program(main)
