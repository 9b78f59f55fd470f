"""Trains one stage with ms-swift (`swift sft`), resumes it after any interruption, proves what it did, exports the model.

The trainer's checkpoints live in WORK_DIR/SIGNATURE, where the signature covers all that determines the result:
settings, seed, model, training set, versions. The same command goes on from the last complete checkpoint of its own
signature; those of other signatures are never touched. On SIGTERM or Ctrl-C the trainer saves after the current step and
stops (Ctrl-C again, 5 s later, ends it at once); the exit status is then 1, because the training is not finished. It is
finished when global_step equals max_steps in the last checkpoint; the trainer's exit status does not say that.

The program fails unless every weight at the beginning is the input's, bit for bit; exactly what the freeze flags do not
freeze has changed; no row was dropped or counted twice; losses go on after a resume. Then OUTPUT_DIR/checkpoint, which
transformers can load, appears as a whole, and after it OUTPUT_DIR/metrics.json.

By hand:
  .venv/bin/python scripts train.train --config config/demo.yaml --stage stage1
"""

import argparse
import os
import signal
from pathlib import Path

from scripts.common.errors import UserError, run_program
from scripts.common.input_files import read_json, read_section, require_file
from scripts.common.logger import log
from scripts.common.ownership import owned
from scripts.common.settings import json_settings
from scripts.common.whole_numbers import seed_number
from scripts.data.dataset_check import require_checked
from scripts.data.fingerprint import dataset_sha256
from scripts.data.swift_model import model_type
from scripts.environments.installed_packages import versions_in
from scripts.train.checkpoints import is_finished, read_trainer_state
from scripts.train.complete_checkpoints import check_unchanged, last_complete, remove_incomplete, step_of
from scripts.train.declarations import checked_sha256
from scripts.train.metrics import CHECKPOINT_NAME
from scripts.train.proof import finish
from scripts.train.run import Run, check_dtype, signature_of
from scripts.train.settings import StageSettings, check_settings
from scripts.train.start import run_trainer_at_free_port
from scripts.train.starts import check_progress, record_attempt, record_failed_start
from scripts.train.trainer_process import StopRequests, exclusive_work_dir

STAGES = ("stage1", "stage2")
VERSIONED_PACKAGES = ("ms-swift", "torch", "transformers", "deepspeed")

# Part of the signature where they are installed; the flags decide whether they are used.
OPTIONAL_PACKAGES = ("flash-attn", "liger-kernel")


def train(run: Run, stop: StopRequests, attempt: int) -> tuple[Path, list[str]]:
    """Trains until finished; returns the last checkpoint and the trainer's command. Raises UserError if stopped before."""
    for path in remove_incomplete(run.trainer_dir):
        log(f"{run.stage}: removed {path}, which was cut off while it was written")
    checkpoint = last_complete(run.trainer_dir)
    if checkpoint is None:
        # Records of a start that saved no checkpoint belong to no training.
        for path in (run.watch.begin, *run.watch.all_steps):
            path.unlink(missing_ok=True)
    elif is_finished(checkpoint):
        log(f"{run.stage}: already trained to step {step_of(checkpoint)}; checking and exporting")
        return checkpoint, read_command(run.command_path)
    else:
        log(f"{run.stage}: going on from step {step_of(checkpoint)}, once its files are found as they were saved")
        check_unchanged(checkpoint)
        if (found := read_trainer_state(checkpoint).global_step) != step_of(checkpoint):
            raise UserError(
                f"{checkpoint}: of step {found}; expected {step_of(checkpoint)}, as its name says; remove it to go on from the "
                "checkpoint before"
            )
    resume_step = step_of(checkpoint) if checkpoint else 0
    check_progress(run, attempt, resume_step)
    record_attempt(run.run_dir, resume_step)
    try:
        return train_to_the_end(run, checkpoint, stop)
    except UserError as error:
        record_failed_start(run.run_dir, str(error))
        raise


def read_command(path: Path) -> list[str]:
    """The trainer's command as it was started last; raises UserError where the file holds something else."""
    words = read_json(path)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UserError(
            f"{path}: {type(words).__name__} found; expected the trainer's command, a list of texts; remove the directory "
            f"{path.parent} to train anew"
        )
    return words


def train_to_the_end(run: Run, resume_from: Path | None, stop: StopRequests) -> tuple[Path, list[str]]:
    """Starts the trainer once; returns the last checkpoint and the command. Raises UserError when steps are left."""
    argv = run_trainer_at_free_port(run, resume_from, stop)
    checkpoint = last_complete(run.trainer_dir)
    if checkpoint is not None and is_finished(checkpoint):
        return checkpoint, argv
    where = None
    if checkpoint is not None:
        where = f"saved at step {step_of(checkpoint)} of {read_trainer_state(checkpoint).max_steps}"
    if stop():
        raise UserError(
            f"{run.stage}: stopped by {signal.Signals(stop.received[0]).name}; {where or 'no step was saved yet'}; "
            "the same command goes on from there"
        )
    raise UserError(
        f"{run.stage}: ms-swift ended without an error, but not at the last step "
        f"({where or 'no checkpoint'}); see {run.log}; the same command goes on from there"
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stage", required=True, choices=STAGES)
    parser.add_argument("--model-dir", required=True, type=Path, help="checkpoint to start from")
    parser.add_argument("--dataset", required=True, type=Path, help="training set: one jsonl of messages and images")
    parser.add_argument("--dataset-check", type=Path, help="the report on it, whose sha256 it must have")
    parser.add_argument("--settings", required=True, help="the stage's section of the configuration, as JSON")
    parser.add_argument("--seed", required=True, type=seed_number)
    parser.add_argument("--work-dir", required=True, type=Path, help="checkpoints and records of unfinished training")
    parser.add_argument("--output-dir", required=True, type=Path, help="gets checkpoint/ and metrics.json")
    parser.add_argument("--log", required=True, type=Path, help="ms-swift's output, appended to")
    parser.add_argument("--train-python", required=True, type=Path, help="interpreter of the environment that trains")
    parser.add_argument("--attempt", type=int, default=1, help="counts the workflow's submissions of this command")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    stage = arguments.stage
    settings = json_settings(StageSettings, stage)(arguments.settings)
    check_settings(stage, settings)
    # Not resolve(), which raises RuntimeError at a link to itself.
    model_dir, dataset = (Path(os.path.realpath(path)) for path in (arguments.model_dir, arguments.dataset))
    model_config = read_section(model_dir / "config.json")
    model_type(model_config)
    check_dtype(stage, settings, model_config, model_dir)
    require_file(arguments.dataset, f"the training set of {stage} as jsonl", "prepare it again")
    if arguments.dataset_check:
        require_checked(arguments.dataset, arguments.dataset_check)

    log(f"{stage}: hashing model and training set, and comparing the model with what declares it")
    python = arguments.train_python.absolute()  # not resolved: a virtual environment's interpreter is a link
    versions = versions_in(python, VERSIONED_PACKAGES, OPTIONAL_PACKAGES)
    dataset_digest, num_rows = dataset_sha256(dataset)
    signature = signature_of(settings, arguments.seed, checked_sha256(model_dir), dataset_digest, versions)
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
    log(f"{stage}: {num_rows} rows; work directory {run.run_dir}")
    others = [path for path in arguments.work_dir.glob("*/trainer") if path.parent.name != signature]
    if others:
        log(f"{stage}: {len(others)} training(s) of other settings or inputs stay as they are")
    output_dir = arguments.output_dir.resolve()
    with (
        StopRequests().listening() as stop,
        owned(output_dir / CHECKPOINT_NAME, should_stop=stop),
        exclusive_work_dir(run.run_dir, stop),
    ):
        run.watch.path.mkdir(exist_ok=True)
        checkpoint, argv = train(run, stop, arguments.attempt)
        finish(run, checkpoint, argv, output_dir, versions)


if __name__ == "__main__":
    run_program(main)
