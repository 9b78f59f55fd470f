"""A trainer callback for ms-swift that checks what a training claims, and makes it interruptible.

ms-swift loads it by `--external_plugins` and switches it on by `--callbacks vlgraft_watch`. It runs in every rank. The
launcher's files and its own are described in scripts/train/watch_files.py.

- When training begins, every weight in memory is compared bit for bit with the checkpoint that it should come from, so a
  re-initialised tensor or an empty resume ends the run before the first step. Resuming is corrected here: transformers
  matches names on disk with names in memory literally, finds none, and only warns.
- What trains and what is frozen is compared with the freeze flags, counted and printed.
- Each rank records each step: samples and tokens that really went into the model, and the time. A step that saw another
  number of samples than was dealt ends the run.
- A checkpoint is marked complete when all of it is on the disk, and what it holds can be proven in the end.
- On SIGTERM or SIGINT, when the launcher asks for it, or when the launcher is gone, the ranks save a checkpoint after the
  current step and stop, all after the same step.
"""

# ruff: noqa: E402 - our modules are found only after the path is set
import json
import math
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import IO, Any

# ms-swift loads this file by its path and puts the file's directory on sys.path. Wanted is the repository's root instead:
# `scripts` is found there, and no module of this directory hides a top-level one.
THIS_FILE = Path(__file__).resolve()
sys.path[:] = [str(THIS_FILE.parents[2]), *(entry for entry in sys.path if Path(entry).resolve() != THIS_FILE.parent)]

import torch
import torch.distributed as dist
from swift.callbacks import TrainerCallback, callbacks_map

from scripts.common.errors import UserError
from scripts.common.files import fsync_file
from scripts.common.processes import is_alive
from scripts.train.checkpoint_space import checkpoint_bytes, disk_shortage_message, num_checkpoints_to_come
from scripts.train.checkpoints import read_trainer_state
from scripts.train.complete_checkpoints import contents_of_share, mark_complete, step_of, trainer_checkpoints
from scripts.train.data_loader import name_failing_rows, quiet_data_loader_workers
from scripts.train.early_proof import EarlyProof
from scripts.train.frozen_tower import spare_frozen_tower
from scripts.train.losses import loss_goes_on, loss_limit, losses_of
from scripts.train.rank import TRAINER_STOP_SIGNALS, init_distributed_early, register_rank, watch_settings
from scripts.train.starts import attempts_path
from scripts.train.step_counter import StepCounter, peak_gpu_memory_gib
from scripts.train.step_records import Dealing, StepRecord, sample_problem
from scripts.train.tensor_changes import GROUPS, shown
from scripts.train.watch_files import WATCH_CALLBACK, WATCH_VARIABLE, Begin, Progress, write_begin, write_progress
from scripts.train.weights import check_groups, count_parameters, differing_weights, load_weights, tied_names


class WatchCallback(TrainerCallback):
    """See the module's docstring."""

    def __init__(self, args: Any, trainer: Any) -> None:
        super().__init__(args, trainer)
        self.settings = watch_settings()
        self.files = self.settings.files
        self.counter = StepCounter()
        self.stop_signal: int | None = None
        self.is_stopping = False
        self.saved_step = -1
        self.losses_before_resume: list[float] | None = None
        self.steps_file: IO[str] | None = None
        self.step_begun_s = 0.0
        self.progress: Progress | None = None
        self.samples_per_step: list[int] = []
        self.early_proof: EarlyProof | None = None
        self._load_resumed_weights_by_translated_names(trainer)
        self._save_tied_weights_once(trainer)

    def _load_resumed_weights_by_translated_names(self, trainer: Any) -> None:
        """Without DeepSpeed, transformers would load a resumed model by literal names."""

        def load_from_checkpoint(resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
            load_weights(trainer.model if model is None else model, Path(resume_from_checkpoint))

        trainer._load_from_checkpoint = load_from_checkpoint

    def _save_tied_weights_once(self, trainer: Any) -> None:
        """DeepSpeed hands over a copy of every weight, tied ones twice; a checkpoint holds a tied tensor once."""
        save = trainer._save

        def save_once(output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
            if state_dict is not None:
                for name in tied_names(trainer.model):
                    state_dict.pop(name, None)
            save(output_dir, state_dict)

        trainer._save = save_once

    # What all ranks decide together

    def _all_reduce(self, value: int, operation: Any) -> int:
        if not (dist.is_available() and dist.is_initialized()):
            return value
        tensor = torch.tensor([value], device=self.args.device)
        dist.all_reduce(tensor, op=operation)
        return int(tensor.item())

    def _all_reduce_max(self, value: int) -> int:
        """The largest of all ranks' values."""
        return self._all_reduce(value, dist.ReduceOp.MAX)

    def _all_reduce_sum(self, value: int) -> int:
        """The sum of all ranks' values."""
        return self._all_reduce(value, dist.ReduceOp.SUM)

    def _barrier(self) -> None:
        """Waits until every rank is here."""
        self._all_reduce_max(0)

    def _gathered(self, values: dict[str, Any]) -> dict[str, Any]:
        """The values of all ranks by their names."""
        if not (dist.is_available() and dist.is_initialized()):
            return values
        gathered: list[dict[str, Any]] = [{} for _ in range(dist.get_world_size())]
        dist.all_gather_object(gathered, values)
        return {name: value for each in gathered for name, value in each.items()}

    def _raise_on_all_ranks(self, problem: str | None) -> None:
        """Raises UserError on every rank when one of them has found a problem."""
        if self._all_reduce_max(int(problem is not None)):
            raise UserError(problem or "another rank has ended the run; its message is in the log")

    # When training begins

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = kwargs["model"]
        self._report(Progress("checking the weights", state.global_step, state.max_steps))
        all_parameters, trainable = count_parameters(model)
        bytes_each = checkpoint_bytes(
            sum(all_parameters.values()),
            sum(trainable.values()),
            next(model.parameters()).element_size(),
            self.settings.deepspeed,
            args.optimizer or args.optim.value,
        )
        dealing = self._dealing(args)
        self.samples_per_step = dealing.samples_per_step(state.max_steps)
        self._raise_on_all_ranks(
            self._problem_at_begin(state)
            or self._dealing_problem(dealing)
            or self._group_problem(all_parameters, trainable)
            or self._weight_problem(args, model)
            or self._disk_shortage(args, state, bytes_each)
        )
        spare_frozen_tower(model)
        trainable_names = sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad)
        self.early_proof = EarlyProof(Path(self.settings.model_dir), trainable_names, self._epoch_steps(state))
        if args.process_index == 0:
            for group in GROUPS:
                mark = "TRAINABLE" if trainable[group] else "FROZEN"
                print(
                    f"[{mark}] {group}: {trainable[group]:,} of {all_parameters[group]:,} parameters train", flush=True
                )
            begin = Begin(
                first_step=state.global_step,
                max_steps=state.max_steps,
                num_processes=args.world_size,
                num_parameters=all_parameters,
                num_trainable_parameters=trainable,
                checkpoint_bytes=bytes_each,
                trainable=trainable_names,
                samples_per_step=self.samples_per_step,
            )
            write_begin(self.files, begin)
        if state.global_step:
            self.losses_before_resume = [point.loss for point in losses_of(state.log_history)]
        model.register_forward_pre_hook(self.counter.count, prepend=True, with_kwargs=True)
        self._open_steps_file(args)
        for number in TRAINER_STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        self.step_begun_s = time.monotonic()
        self._report(Progress("training", state.global_step, state.max_steps, num_samples=0))

    def _dealing(self, args: Any) -> Dealing:
        return Dealing(
            num_rows=len(self.trainer.train_dataset),
            num_processes=args.world_size,
            batch_size=self.trainer._train_batch_size,
            accumulation=args.gradient_accumulation_steps,
            drop_last=args.dataloader_drop_last,
            is_grouped_by_length=args.group_by_length,
        )

    def _epoch_steps(self, state: Any) -> int:
        """How many steps an epoch has, as the trainer counts them."""
        return math.ceil(state.max_steps / state.num_train_epochs)

    def _open_steps_file(self, args: Any) -> None:
        path = self.files.steps(args.process_index)
        self.steps_file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - kept open while training
        self.steps_file.write("\n" if path.stat().st_size else "")  # after a line that a kill cut off

    def _dealing_problem(self, dealing: Dealing) -> str | None:
        """Error text if there are too few rows for a step, else None."""
        if dealing.samples_of_an_epoch():
            return None
        needed = "one a process" if not dealing.drop_last else "a batch a process, because of dataloader_drop_last"
        return (
            f"{self.settings.dataset}: {dealing.num_rows} rows for {dealing.num_processes} processes with batches of "
            f"{dealing.batch_size} found; expected at least {needed}; give more rows, or lower the number of processes"
        )

    def _problem_at_begin(self, state: Any) -> str | None:
        """Error text if rows or the first step are not the expected ones, else None."""
        num_rows, expected_rows = len(self.trainer.train_dataset), self.settings.num_rows
        if num_rows != expected_rows:
            return (
                f"{self.settings.dataset}: ms-swift kept {num_rows} of {expected_rows} rows; "
                "a row without an assistant's answer, or one that it cannot read, was dropped"
            )
        resume_dir = self.settings.resume_dir
        expected_step = step_of(resume_dir) if resume_dir else 0
        if state.global_step != expected_step:
            return f"training would begin at step {state.global_step}, expected {expected_step}"
        return None

    def _group_problem(self, all_parameters: dict[str, int], trainable: dict[str, int]) -> str | None:
        """Error text if other modules train than the freeze flags say, else None."""
        try:
            check_groups(self.settings, all_parameters, trainable)
        except UserError as error:
            return str(error)
        return None

    def _weight_problem(self, args: Any, model: torch.nn.Module) -> str | None:
        """Error text if weights in memory are not those on the disk, else None.

        One rank of each machine reads them: torch's and DeepSpeed's wrappers have by now given the others the first one's.
        """
        is_partitioned = any(hasattr(parameter, "ds_id") for parameter in model.parameters())
        if args.local_process_index == 0 or is_partitioned:
            source = self.settings.resume_dir or Path(self.settings.model_dir)
            if differences := differing_weights(model, source):
                return f"{source}: the weights in memory are not those on disk: {shown(differences)}"
        return None

    def _disk_shortage(self, args: Any, state: Any, bytes_each: int) -> str | None:
        """Error text if the coming checkpoints do not fit on the disk, else None. Only rank 0 looks."""
        if args.process_index != 0:
            return None
        num_to_come = num_checkpoints_to_come(
            state.global_step,
            state.max_steps,
            self._epoch_steps(state) if args.save_strategy == "epoch" else state.save_steps,
            len(trainer_checkpoints(Path(args.output_dir))),
            args.save_total_limit,
        )
        return disk_shortage_message(Path(args.output_dir), bytes_each, num_to_come, args.save_total_limit)

    # During training

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        assert self.steps_file is not None and self.progress is not None and self.progress.num_samples is not None
        now_s = time.monotonic()
        num_samples, num_tokens = self.counter.take()
        record = StepRecord(
            step=state.global_step,
            num_samples=num_samples,
            num_tokens=num_tokens,
            step_time_s=round(now_s - self.step_begun_s, 6),
            end_time_s=round(time.time(), 3),
            peak_gpu_memory_gib=peak_gpu_memory_gib(),
        )
        self.steps_file.write(json.dumps(asdict(record)) + "\n")
        self.steps_file.flush()
        self.step_begun_s = now_s
        num_samples_of_all = self._all_reduce_sum(num_samples)
        num_expected = self.samples_per_step[state.global_step - 1]
        if problem := sample_problem(state.global_step, num_samples_of_all, num_expected):
            raise UserError(problem)  # every rank has the same sum
        num_samples_so_far = self.progress.num_samples + num_samples_of_all
        self._report(replace(self.progress, step=state.global_step, num_samples=num_samples_so_far))
        if state.global_step >= state.max_steps:
            control.should_save = control.should_log = True
        elif self._all_reduce_max(int(self._wants_to_stop(args))):
            self.is_stopping = control.should_save = control.should_log = control.should_training_stop = True
            self._report(replace(self.progress, phase="saving before it stops"))
        return control

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        # A complete checkpoint is never written again, which an epoch that ends with a saved step would do.
        if self.saved_step == state.global_step:
            control.should_save = False
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        if self.progress is not None:
            self._report(replace(self.progress, loss=loss))
        # Every rank gets the same mean loss, so all of them fail together.
        if not math.isfinite(loss):
            raise UserError(
                f"step {state.global_step}: the loss is {loss}; lower learning_rate, or look for broken rows in the data"
            )
        if self.losses_before_resume and not loss_goes_on(self.losses_before_resume, loss):
            raise UserError(
                f"step {state.global_step}: the first loss after the resume is {loss:.4f}, at most "
                f"{loss_limit(self.losses_before_resume):.4f} expected from those before; the resumed state is not the "
                "saved one"
            )
        self.losses_before_resume = None

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        checkpoint_dir = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if self.steps_file is not None:
            fsync_file(Path(self.steps_file.name))
        self._barrier()  # every rank has written its part
        contents = self._gathered(contents_of_share(checkpoint_dir, args.process_index, args.world_size))
        if args.process_index == 0:
            if read_trainer_state(checkpoint_dir).global_step != state.global_step:
                raise UserError(f"{checkpoint_dir}: holds another step than {state.global_step}")
            steps = map(self.files.steps, range(args.world_size))
            mark_complete(checkpoint_dir, [self.files.begin, attempts_path(self.files.run_dir), *steps], contents)
        # No rank goes on, or ends, before the checkpoint is marked.
        self._raise_on_all_ranks(self._unprovable(args, state, checkpoint_dir))
        self.saved_step = state.global_step
        self.step_begun_s = time.monotonic()

    def _unprovable(self, args: Any, state: Any, checkpoint_dir: Path) -> str | None:
        """Error text if what is trained could never be published, else None. Only rank 0 looks.

        Not in the last checkpoint, which is proven next, nor in that of a run that is to stop and may be killed soon.
        """
        if (
            self.early_proof is None
            or args.process_index != 0
            or self.is_stopping
            or state.global_step >= state.max_steps
        ):
            return None
        return self.early_proof.problem(checkpoint_dir, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.progress is not None:
            self._report(replace(self.progress, phase="saved, ms-swift is ending"))

    # Stopping

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop_signal = number

    def _wants_to_stop(self, args: Any) -> bool:
        if self.stop_signal is not None:
            return True
        if args.process_index != 0:
            return False
        return Path(self.settings.stop_file).exists() or not is_alive(self.settings.launcher)

    def _report(self, progress: Progress) -> None:
        """What the launcher and `make status` show."""
        self.progress = progress
        if self.args.process_index == 0:
            write_progress(self.files, progress)


callbacks_map[WATCH_CALLBACK] = WatchCallback


# Not in a data loader worker that imports the plugins again, nor in a test.
if WATCH_VARIABLE in os.environ and multiprocessing.parent_process() is None:
    quiet_data_loader_workers()
    name_failing_rows()
    _RANKS_LOCK = register_rank(watch_settings())
    if os.environ.get("DS_ACCELERATOR") == "cpu" and watch_settings().deepspeed:
        init_distributed_early()
