"""One start of the trainer: prepares it, runs ms-swift to its end or to a stop, and tells why it failed."""

import time
import uuid
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import write_json_atomically
from scripts.common.logger import log
from scripts.common.processes import this_process
from scripts.environments.installed_packages import package_dir
from scripts.train.command import Launch, SwiftCommand, build_sft_command
from scripts.train.failures import failure_message, full_disk_message, rendezvous_failed
from scripts.train.launch import (
    check_slurm_job,
    inherited_environment,
    node_launcher,
    num_gpus,
    without_slurm_options,
)
from scripts.train.progress import ProgressLog
from scripts.train.run import Run
from scripts.train.starts import read_attempts
from scripts.train.trainer_process import StopRequests, Trainer, wait_for_ranks
from scripts.train.watch_files import WatchSettings, write_watch_settings

# With one of these, `freeze_vit` and the like do not say alone what trains.
CUSTOM_FREEZING_FLAGS = (
    "freeze_parameters", "freeze_parameters_regex", "freeze_parameters_ratio", "trainable_parameters",
    "trainable_parameters_regex",
)  # fmt: skip
SECONDS_BETWEEN_LOOKS = 0.2

# Another program may take a port between its choice and its use; that this happens again and again has another cause.
NUM_PORTS_TRIED = 3


class RendezvousFailed(UserError):
    """The nodes' agents did not meet, as when another program has taken their port meanwhile."""


def watch_settings_of(run: Run, resume_from: Path | None) -> WatchSettings:
    """What the callback must know of this start."""
    flags = run.settings.flags
    return WatchSettings(
        freeze_vit=run.settings.freezes("freeze_vit"),
        freeze_aligner=run.settings.freezes("freeze_aligner"),
        freeze_llm=run.settings.freezes("freeze_llm"),
        deepspeed=run.settings.deepspeed,
        custom_freezing=any(flags.get(name) for name in CUSTOM_FREEZING_FLAGS),
        watch_dir=str(run.watch.path),
        stop_file=str(run.watch.stop),
        launcher=this_process(),
        model_dir=str(run.model_dir),
        dataset=str(run.dataset),
        num_rows=run.num_rows,
        resume_from=str(resume_from) if resume_from else None,
    )


def prepare_start(run: Run, resume_from: Path | None) -> tuple[SwiftCommand, dict[str, str]]:
    """Clears what an earlier start left, writes the callback's settings, and returns the command and the complete environment."""
    run.watch.clear()
    # A compilation that was killed leaves a lock for which torch would wait for ever; no other trainer is here now.
    for path in run.cache_dir.glob("torch_extensions/**/lock"):
        path.unlink()
    write_watch_settings(watch_settings_of(run, resume_from))

    settings = run.settings
    environment = inherited_environment(settings)
    gpus = num_gpus(run.python, environment)
    if 0 < gpus < settings.num_processes_per_node:
        raise UserError(
            f"{run.stage}.num_processes_per_node: {settings.num_processes_per_node} found, at most {gpus} expected, one for "
            "each GPU here"
        )
    check_slurm_job(run.stage, settings.num_nodes)
    has_nodes = settings.num_nodes > 1
    rendezvous_id = f"start{len(read_attempts(run.run_dir))}-{uuid.uuid4().hex[:12]}"
    launch = Launch(
        sft_script=package_dir(run.python, "swift") / "cli" / "sft.py",
        device="cuda" if gpus else "cpu",
        first_gpu=environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
        resume_from=resume_from,
        node_launcher=node_launcher(run.python, settings.num_nodes, rendezvous_id) if has_nodes else [],
        rendezvous_id=rendezvous_id,
    )
    command = build_sft_command(run, launch)
    if has_nodes:
        environment = without_slurm_options(environment)
    return command, environment | command.environment


def run_trainer(run: Run, resume_from: Path | None, stop: StopRequests) -> list[str]:
    """Runs ms-swift until it ends, by itself or because a stop was asked for. Returns its command.

    Raises UserError when it failed. Whether the training is finished, the checkpoints tell.
    """
    command, environment = prepare_start(run, resume_from)
    write_json_atomically(run.command_path, command.argv)
    run.log.parent.mkdir(parents=True, exist_ok=True)
    with open(run.log, "ab") as log_file:
        log_start = log_file.tell()
        log_file.write(f"=== {time.strftime('%Y-%m-%d %H:%M:%S')} {run.stage}: {' '.join(command.argv)}\n".encode())
        log_file.flush()
        log(f"{run.stage}: starting ms-swift; its output goes to {run.log}")
        trainer = Trainer(command.argv, environment, log_file, has_agent=run.settings.uses_torchrun)
        wait_for_end(run, trainer, stop)
    wait_for_ranks(run.run_dir, lambda: stop.is_urgent)
    if trainer.exit_code and not stop():
        if message := full_disk_message(run, log_start):
            raise UserError(message)
        kind = RendezvousFailed if rendezvous_failed(run, log_start) else UserError
        raise kind(failure_message(run, trainer.exit_code, log_start))
    return command.argv


def wait_for_end(run: Run, trainer: Trainer, stop: StopRequests) -> None:
    """Logs progress until the trainer has ended, and passes requests to stop on to it."""
    progress = ProgressLog(run.stage, run.watch)
    is_stopping = was_killed = False
    while trainer.exit_code is None:
        progress.update()
        if stop() and not is_stopping:
            is_stopping = True
            run.watch.stop.touch()
            if run.watch.begin.exists():
                log(f"{run.stage}: stopping after the current step (Ctrl-C again in 5 s stops at once)")
            else:
                log(f"{run.stage}: stopping before the first step")
                trainer.end_before_training()
        if stop.is_urgent and not was_killed:
            was_killed = True
            log(f"{run.stage}: stopping at once")
            trainer.kill(run.watch.processes())
        time.sleep(SECONDS_BETWEEN_LOOKS)
    progress.update()


def run_trainer_at_free_port(run: Run, resume_from: Path | None, stop: StopRequests) -> list[str]:
    """Runs the trainer, and again at another port if the nodes could not meet. Returns its command."""
    for number in range(1, NUM_PORTS_TRIED + 1):
        try:
            return run_trainer(run, resume_from, stop)
        except RendezvousFailed:
            if number == NUM_PORTS_TRIED:
                raise
            log(f"{run.stage}: the nodes could not meet; trying another port")
    raise AssertionError("every try returns or raises")
