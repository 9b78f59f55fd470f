"""A trainer callback for ms-swift that proves what a run claims, and makes it interruptible. Loaded by
`--external_plugins`, switched on by `--callbacks vlgraft_watch`; scripts/train/train.py writes the file that
$VLGRAFT_WATCH names and reads what is left here.

- When training begins, every weight in memory is compared bit for bit with the checkpoint that it should come from, so a
  re-initialised tensor or an empty resume ends the run before a step is trained. It mends the second: transformers' own
  resume matches names on disk with names in memory literally, finds none, and warns.
- What trains and what is frozen is compared with the freeze flags, counted and printed.
- Each rank writes a line a step: samples and tokens that really went into the model, and the time.
- A checkpoint is marked complete when all of it is on the disk.
- On SIGTERM or SIGINT, on the launcher's request, or when the launcher is gone, the ranks agree after a step, save a
  checkpoint and stop.
"""

# ruff: noqa: E402 - our modules are found only after the path is set
import json
import math
import multiprocessing
import os
import signal
import sys
import time
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
from scripts.common.files import fsync_file, read_json, write_json_atomically
from scripts.common.processes import is_alive
from scripts.train.checkpoint_space import checkpoint_bytes, num_checkpoints_to_come, want_of_room
from scripts.train.checkpoints import mark_complete, step_of, trainer_checkpoints, trainer_state
from scripts.train.command import WATCH_CALLBACK, WATCH_VARIABLE
from scripts.train.data_loader import name_failing_rows, quiet_data_loader_workers
from scripts.train.rank import TRAINER_STOP_SIGNALS, join_the_run, meet_before_the_model_is_made
from scripts.train.step_records import loss_goes_on, loss_limit, losses_of, samples_per_step, steps_path
from scripts.train.tensor_changes import GROUPS, shown
from scripts.train.weights import check_groups, count_parameters, differing_weights, load_weights, tied_names


class StepCounter:
    """Samples and tokens that go into the model during one step, counted at its door."""

    def __init__(self) -> None:
        self.num_samples = 0
        self._num_tokens: list[torch.Tensor | int] = []

    def look(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A forward pre-hook. Rows of a batch that was packed into one are told by the bounds that come with it."""
        if not (module.training and torch.is_grad_enabled()):
            return
        input_ids = kwargs["input_ids"]
        bounds = kwargs.get("cu_seq_lens_q")
        self.num_samples += len(bounds) - 1 if bounds is not None and len(input_ids) == 1 else len(input_ids)
        mask = kwargs.get("attention_mask")
        if isinstance(mask, torch.Tensor) and mask.shape == input_ids.shape:
            self._num_tokens.append(mask.sum())
        else:
            self._num_tokens.append(input_ids.numel())

    def take(self) -> tuple[int, int]:
        """Samples and tokens since the last call."""
        num_samples, num_tokens = self.num_samples, sum(int(count) for count in self._num_tokens)
        self.num_samples, self._num_tokens = 0, []
        return num_samples, num_tokens


def peak_gpu_memory_gib() -> float | None:
    """What torch has taken of this rank's GPU at most, since the process began; None on a CPU."""
    return round(torch.cuda.max_memory_reserved() / 2**30, 2) if torch.cuda.is_available() else None


class WatchCallback(TrainerCallback):
    """See the module's text."""

    def __init__(self, args: Any, trainer: Any) -> None:
        super().__init__(args, trainer)
        self.settings = read_json(Path(os.environ[WATCH_VARIABLE]))
        self.watch_dir = Path(self.settings["watch_dir"])
        self.counter = StepCounter()
        self.stop_signal: int | None = None
        self.saved_step = -1
        self.losses_before: list[float] | None = None
        self.steps_file: IO[str] | None = None
        self.mark_s = 0.0
        self.progress: dict[str, Any] = {}
        self._mend_resume(trainer)
        self._mend_save(trainer)

    @property
    def resume_dir(self) -> Path | None:
        return Path(self.settings["resume_from"]) if self.settings["resume_from"] else None

    def _mend_resume(self, trainer: Any) -> None:
        """Without DeepSpeed, transformers loads a resumed model by literal names; load it by translated ones."""

        def load_from_checkpoint(resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
            load_weights(trainer.model if model is None else model, Path(resume_from_checkpoint))

        trainer._load_from_checkpoint = load_from_checkpoint

    def _mend_save(self, trainer: Any) -> None:
        """DeepSpeed hands over a copy of every weight, tied ones twice; a checkpoint holds a tied tensor once."""
        save = trainer._save

        def save_once(output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
            if state_dict is not None:
                for name in tied_names(trainer.model):
                    state_dict.pop(name, None)
            save(output_dir, state_dict)

        trainer._save = save_once

    # Agreement among ranks

    def _largest(self, value: int) -> int:
        """The largest of all ranks' values."""
        if not (dist.is_available() and dist.is_initialized()):
            return value
        tensor = torch.tensor([value], device=self.args.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return int(tensor.item())

    def _agree(self, problem: str | None) -> None:
        """Raises UserError on every rank when one of them has found a problem."""
        if self._largest(int(problem is not None)):
            raise UserError(problem or "another rank has ended the run; its message is in the log")

    # The trainer's events

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = kwargs["model"]
        self._report(phase="checking the weights", step=state.global_step, max_steps=state.max_steps)
        all_parameters, trainable = count_parameters(model)
        bytes_each = checkpoint_bytes(
            sum(all_parameters.values()),
            sum(trainable.values()),
            next(model.parameters()).element_size(),
            self.settings["deepspeed"],
            args.optimizer or args.optim.value,
        )
        self._agree(
            self._problem_at_begin(args, state, model, all_parameters, trainable)
            or self._want_of_room(args, state, bytes_each)
        )
        trainable_names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        if args.process_index == 0:
            for group in GROUPS:
                mark = "TRAINABLE" if trainable[group] else "FROZEN"
                print(
                    f"[{mark}] {group}: {trainable[group]:,} of {all_parameters[group]:,} parameters train", flush=True
                )
            write_json_atomically(
                self.watch_dir / "begin.json",
                {
                    "first_step": state.global_step,
                    "max_steps": state.max_steps,
                    "num_processes": args.world_size,
                    "num_parameters": all_parameters,
                    "num_trainable_parameters": trainable,
                    "checkpoint_bytes": bytes_each,
                    "trainable": sorted(trainable_names),
                    "samples_per_step": samples_per_step(
                        num_rows=len(self.trainer.train_dataset),
                        num_processes=args.world_size,
                        batch_size=self.trainer._train_batch_size,
                        accumulation=args.gradient_accumulation_steps,
                        drop_last=args.dataloader_drop_last,
                        num_steps=state.max_steps,
                    ),
                },
            )
        if state.global_step:
            self.losses_before = [entry["loss"] for entry in losses_of(state.log_history)]
        model.register_forward_pre_hook(self.counter.look, prepend=True, with_kwargs=True)
        path = steps_path(self.watch_dir, args.process_index)
        self.steps_file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - kept open while training
        self.steps_file.write("\n" if path.stat().st_size else "")  # after a line that a kill cut off
        for number in TRAINER_STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        self.mark_s = time.monotonic()
        self._report(phase="training", step=state.global_step, max_steps=state.max_steps, num_samples=0)

    def _problem_at_begin(
        self,
        args: Any,
        state: Any,
        model: torch.nn.Module,
        all_parameters: dict[str, int],
        trainable: dict[str, int],
    ) -> str | None:
        """What makes it pointless to train, or None. The weights are read by one rank a machine: torch's and DeepSpeed's
        wrappers have by now given the others the first one's."""
        num_rows, expected_rows = len(self.trainer.train_dataset), self.settings["num_rows"]
        if num_rows != expected_rows:
            return (
                f"{self.settings['dataset']}: ms-swift kept {num_rows} of {expected_rows} rows; "
                "a row without an assistant's answer, or one that it cannot read, was dropped"
            )
        resume_dir = self.resume_dir
        expected_step = step_of(resume_dir) if resume_dir else 0
        if state.global_step != expected_step:
            return f"training would begin at step {state.global_step}, expected {expected_step}"
        try:
            check_groups(self.settings, all_parameters, trainable)
        except UserError as error:
            return str(error)
        is_partitioned = any(hasattr(parameter, "ds_id") for parameter in model.parameters())
        if args.local_process_index == 0 or is_partitioned:
            source = resume_dir or Path(self.settings["model_dir"])
            if findings := differing_weights(model, source):
                return f"{source}: the weights in memory are not those on disk: {shown(findings)}"
        return None

    def _want_of_room(self, args: Any, state: Any, bytes_each: int) -> str | None:
        """What is to be said where the checkpoints to come do not fit on the disk, or None; one rank is enough to see it."""
        if args.process_index != 0:
            return None
        epoch_steps = math.ceil(state.max_steps / state.num_train_epochs)
        num_to_come = num_checkpoints_to_come(
            state.global_step,
            state.max_steps,
            epoch_steps if args.save_strategy == "epoch" else state.save_steps,
            len(trainer_checkpoints(Path(args.output_dir))),
            args.save_total_limit,
        )
        return want_of_room(Path(args.output_dir), bytes_each, num_to_come, args.save_total_limit)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        assert self.steps_file is not None
        now_s = time.monotonic()
        num_samples, num_tokens = self.counter.take()
        record = {
            "step": state.global_step,
            "num_samples": num_samples,
            "num_tokens": num_tokens,
            "step_time_s": round(now_s - self.mark_s, 6),
            "end_time_s": round(time.time(), 3),
            "peak_gpu_memory_gib": peak_gpu_memory_gib(),
        }
        self.steps_file.write(json.dumps(record) + "\n")
        self.steps_file.flush()
        self.mark_s = now_s
        self._report(step=state.global_step, num_samples=num_samples * args.world_size)
        if state.global_step >= state.max_steps:
            control.should_save = control.should_log = True
        elif self._largest(int(self._wants_to_stop(args))):
            control.should_save = control.should_log = control.should_training_stop = True
            self._report(phase="saving before it stops")
        return control

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        # A complete checkpoint is never written to again, as an epoch's would be that ends with a saved step.
        if self.saved_step == state.global_step:
            control.should_save = False
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        self._report(loss=loss)
        # Every rank is told the same mean loss, so all of them fail together.
        if not math.isfinite(loss):
            raise UserError(
                f"step {state.global_step}: the loss is {loss}; lower learning_rate, or look for broken rows in the data"
            )
        if self.losses_before and not loss_goes_on(self.losses_before, loss):
            raise UserError(
                f"step {state.global_step}: the first loss after the resume is {loss:.4f}, at most "
                f"{loss_limit(self.losses_before):.4f} expected from those before; the resumed state is not the saved one"
            )
        self.losses_before = None

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        checkpoint_dir = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if self.steps_file is not None:
            fsync_file(Path(self.steps_file.name))
        self._largest(0)  # every rank has written its part
        if args.process_index == 0:
            if trainer_state(checkpoint_dir)["global_step"] != state.global_step:
                raise UserError(f"{checkpoint_dir}: holds another step than {state.global_step}")
            mark_complete(checkpoint_dir)
        self._largest(0)  # nobody goes on, or ends, before that is said
        self.saved_step = state.global_step
        self.mark_s = time.monotonic()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._report(phase="saved, ms-swift is ending")

    # Stopping

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop_signal = number

    def _wants_to_stop(self, args: Any) -> bool:
        if self.stop_signal is not None:
            return True
        if args.process_index != 0:
            return False
        return Path(self.settings["stop_file"]).exists() or not is_alive(self.settings["launcher"])

    def _report(self, **values: Any) -> None:
        """What the launcher shows while it waits; a reader sees the old text or the new one."""
        if self.args.process_index != 0:
            return
        if "num_samples" in values:
            values["num_samples"] += self.progress.get("num_samples", 0)
        self.progress |= values
        temporary = self.watch_dir / ".progress.tmp"
        temporary.write_text(json.dumps(self.progress), encoding="utf-8")
        temporary.replace(self.watch_dir / "progress.json")


callbacks_map[WATCH_CALLBACK] = WatchCallback


# Not in a worker that imports the plugins anew, nor in a test.
if WATCH_VARIABLE in os.environ and multiprocessing.parent_process() is None:
    quiet_data_loader_workers()
    name_failing_rows()
    _RANKS_LOCK = join_the_run()
    if os.environ.get("DS_ACCELERATOR") == "cpu" and read_json(Path(os.environ[WATCH_VARIABLE]))["deepspeed"]:
        meet_before_the_model_is_made()
