"""A trainer callback for ms-swift that proves what a run claims, and makes it interruptible. Loaded by
`--external_plugins`, switched on by `--callbacks vlgraft_watch`; scripts/train.py writes the file that
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

import atexit
import fcntl
import json
import math
import mmap
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from swift.callbacks import TrainerCallback, callbacks_map
from swift.dataset import LazyLLMDataset
from swift.template import MaxLengthError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.checkpoint_files import (
    fsync_file,
    mark_complete,
    step_of,
    trainer_checkpoints,
    trainer_state,
    weight_files,
)
from common.checkpoint_space import checkpoint_bytes, num_checkpoints_to_come, want_of_room
from common.errors import UserError
from common.files import read_json, write_json_atomically
from common.process_group import RANKS_LOCK_NAME, die_with_parent, is_alive, this_process
from common.swift_command import WATCH_CALLBACK, WATCH_VARIABLE
from common.tensor_changes import GROUPS, group_of, name_in_memory, shown
from common.training_records import loss_goes_on, loss_limit, losses_of, samples_per_step, steps_path

# ms-swift puts this file's own directory on the path, where its neighbours would stand in for top-level modules.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]

# Handled from the first step on; before it they end the process, which has nothing to save.
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_NUM_CHARACTERS_SHOWN = 200


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


@contextmanager
def whole(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """A parameter with all its values: ZeRO-3 keeps a part on each rank. Then every rank must ask for it."""
    if hasattr(tensor, "ds_id"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([tensor]):
            yield tensor
    else:
        yield tensor


def differing_weights(model: torch.nn.Module, checkpoint_dir: Path) -> list[str]:
    """What is wrong with the weights in memory, one line a tensor; reads the checkpoint tensor by tensor."""
    in_memory = model.state_dict(keep_vars=True)
    # Tied weights are one tensor under two names, of which the checkpoint holds one.
    names_of_tensor: dict[int, list[str]] = {}
    for name, tensor in in_memory.items():
        names_of_tensor.setdefault(id(tensor), []).append(name)
    findings = []
    seen: set[str] = set()
    for path in weight_files(checkpoint_dir):
        with safe_open(path, framework="pt") as file:
            for disk_name in file.keys():  # noqa: SIM118 - not a dict
                tensor = in_memory.get(name_in_memory(disk_name))
                if tensor is None:
                    findings.append(f"{disk_name}: in the checkpoint, not in the model")
                    continue
                seen.update(names_of_tensor[id(tensor)])
                expected = file.get_tensor(disk_name)
                with whole(tensor) as found:
                    if expected.shape != found.shape:
                        findings.append(f"{disk_name}: {list(found.shape)} in memory, {list(expected.shape)} on disk")
                    elif not torch.equal(expected.to(device=found.device, dtype=found.dtype), found):
                        findings.append(f"{disk_name}: other values than on disk")
    findings += [f"{name}: in the model, not in the checkpoint (newly initialised)" for name in in_memory.keys() - seen]
    return findings


def tied_names(model: torch.nn.Module) -> set[str]:
    """Second names of tensors that have two, as a head has that is the embedding."""
    return dict(model.named_parameters(remove_duplicate=False)).keys() - dict(model.named_parameters()).keys()


def load_weights(model: torch.nn.Module, checkpoint_dir: Path) -> None:
    """Copies a checkpoint into the model tensor by tensor, names on disk translated into names in memory.

    What does not fit is left to `differing_weights`, which follows.
    """
    in_memory = model.state_dict()
    for path in weight_files(checkpoint_dir):
        with safe_open(path, framework="pt") as file:
            for disk_name in file.keys():  # noqa: SIM118 - not a dict
                if (tensor := in_memory.get(name_in_memory(disk_name))) is not None:
                    tensor.copy_(file.get_tensor(disk_name))


def count_parameters(model: torch.nn.Module) -> tuple[dict[str, int], dict[str, int]]:
    """All parameters and the trainable ones, per module group."""
    all_parameters, trainable = dict.fromkeys(GROUPS, 0), dict.fromkeys(GROUPS, 0)
    for name, parameter in model.named_parameters():
        num_values = getattr(parameter, "ds_numel", parameter.numel())  # ZeRO-3: the whole's
        all_parameters[group_of(name)] += num_values
        trainable[group_of(name)] += num_values if parameter.requires_grad else 0
    return all_parameters, trainable


def check_groups(args: Any, all_parameters: dict[str, int], trainable: dict[str, int]) -> None:
    """Raises UserError unless exactly the groups train that the freeze flags leave free, whole."""
    if args["custom_freezing"]:
        return
    frozen = {
        "vision_tower": args["freeze_vit"],
        "aligner": args["freeze_aligner"],
        "language_model": args["freeze_llm"],
    }
    for group in GROUPS:
        expected = 0 if frozen[group] else all_parameters[group]
        if trainable[group] != expected:
            raise UserError(
                f"{group}: {trainable[group]} of {all_parameters[group]} parameters train; expected {expected} by the "
                "freeze flags; the model's groups are registered wrongly"
            )


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
        for number in _STOP_SIGNALS:
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


class QuietWorker:
    """Initialises a data loader worker so that it ignores the stop signals until its trainer is ending.

    A scheduler signals every process, and a worker that dies of SIGTERM takes its trainer with it before that has saved.
    At its own end the trainer sends the same signal; `ending` is one byte that both share, 1 from then on.
    """

    def __init__(self, initialise: Any, ending: mmap.mmap) -> None:
        self.initialise, self.ending = initialise, ending

    def __call__(self, worker_id: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        if self.initialise is not None:
            self.initialise(worker_id)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        if self.ending[0]:
            os._exit(0)


def quiet_data_loader_workers() -> None:
    """Makes every data loader start its workers as above. Only forked ones share memory; others stay as they are."""
    ending = mmap.mmap(-1, 1)
    # Called before multiprocessing's own, which ends the workers and waits for them.
    atexit.register(ending.__setitem__, 0, 1)
    loader = torch.utils.data.DataLoader
    original = loader.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        context = self.multiprocessing_context or multiprocessing.get_context()
        if self.num_workers > 0 and context.get_start_method() == "fork":
            self.worker_init_fn = QuietWorker(self.worker_init_fn, ending)

    loader.__init__ = __init__


def described_row(row: dict[str, Any]) -> str:
    """A row of the training set by its pictures, or by how it begins; ms-swift has shuffled the numbers."""
    images = [image.get("path") or "inline" if isinstance(image, dict) else image for image in row.get("images") or []]
    return f"images {images}" if images else f"{str(row.get('messages'))[:_NUM_CHARACTERS_SHOWN]}…"


def name_failing_rows() -> None:
    """Makes a row that cannot be read, or is too long, fail with what tells which one it is."""
    original = LazyLLMDataset.__getitem__

    def __getitem__(self: Any, index: Any) -> Any:
        try:
            return original(self, index)
        except Exception as error:
            remedy = "; set max_length or truncation_strategy" if isinstance(error, MaxLengthError) else ""
            raise UserError(
                f"training set, the row with {described_row(self.dataset[index])}: {type(error).__name__}: {error}; "
                f"mend or remove it{remedy}"
            ) from error

    LazyLLMDataset.__getitem__ = __getitem__


def join_the_run() -> IO[str]:
    """What a rank does first: end with its parent, hold the ranks' lock, leave word of itself and of its failure."""
    settings = read_json(Path(os.environ[WATCH_VARIABLE]))
    watch_dir = Path(settings["watch_dir"])
    rank = int(os.environ.get("RANK", "0"))
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # torchrun is started with them ignored
    die_with_parent(signal.SIGTERM)
    if not is_alive(settings["launcher"]):
        sys.exit("the launcher is gone; nothing was begun")
    lock = open(watch_dir.parent / RANKS_LOCK_NAME, "a", encoding="utf-8")  # noqa: SIM115 - held until the end
    fcntl.flock(lock, fcntl.LOCK_SH)
    write_json_atomically(watch_dir / f"rank{rank}.json", this_process())

    def leave_word(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        # The first one to fail is the cause; the others fail because of it.
        if isinstance(error, UserError):  # from a data loader worker it comes with the worker's traceback before it
            text = str(error).rpartition("UserError: ")[2].strip()
        else:
            text = "".join(traceback.format_exception_only(error)).strip()
        failure = {"rank": rank, "message": text, "is_user_error": isinstance(error, UserError), "time_s": time.time()}
        write_json_atomically(watch_dir / f"failure-rank{rank}.json", failure)
        sys.__excepthook__(kind, error, trace)

    sys.excepthook = leave_word
    return lock


def meet_before_the_model_is_made() -> None:
    """ZeRO-3 divides weights while they are loaded. On GPUs accelerate lets DeepSpeed's ranks meet before that, on a CPU it does
    not (accelerate 1.x, state.py), and DeepSpeed then takes each process for the only one.

    DeepSpeed would compile a reduction through shared memory first, for a minute; its tensor-parallel layers alone use it
    (deepspeed 0.19, comm/torch.py: inference_all_reduce).
    """
    from deepspeed import comm, ops

    ops.__compatible_ops__["deepspeed_shm_comm"] = False
    comm.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)


callbacks_map[WATCH_CALLBACK] = WatchCallback
# Not in a worker that imports the plugins anew, nor in a test.
if WATCH_VARIABLE in os.environ and multiprocessing.parent_process() is None:
    quiet_data_loader_workers()
    name_failing_rows()
    _RANKS_LOCK = join_the_run()
    if os.environ.get("DS_ACCELERATOR") == "cpu" and read_json(Path(os.environ[WATCH_VARIABLE]))["deepspeed"]:
        meet_before_the_model_is_made()
