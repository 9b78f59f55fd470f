"""One rank of a training: it records its process and, later, its error, and joins the process group in time."""

import fcntl
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import IO

from scripts.common.errors import UserError
from scripts.common.files import write_json_atomically
from scripts.common.processes import die_with_parent, is_alive, this_process
from scripts.train.trainer_process import RANKS_LOCK_NAME
from scripts.train.watch_files import WATCH_VARIABLE, Failure, WatchSettings, read_watch_settings, write_failure

# Handled from the first step on. Before it they end the process, which has nothing to save.
TRAINER_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def watch_settings() -> WatchSettings:
    """What the launcher tells this trainer."""
    return read_watch_settings(Path(os.environ[WATCH_VARIABLE]))


def register_rank(settings: WatchSettings) -> IO[str]:
    """Ends this process with its parent, takes the ranks' lock, and records this rank's process and, later, its error.

    Returns the lock, which must stay open until the process ends.
    """
    rank = int(os.environ.get("RANK", "0"))
    for number in TRAINER_STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # torchrun is started with them ignored
    die_with_parent(signal.SIGTERM, os.getppid())
    if not is_alive(settings.launcher):
        sys.exit("the launcher is gone; nothing was begun")
    lock = open(settings.files.path.parent / RANKS_LOCK_NAME, "a", encoding="utf-8")  # noqa: SIM115 - held until the end
    fcntl.flock(lock, fcntl.LOCK_SH)
    write_json_atomically(settings.files.rank(rank), this_process())

    def record_failure(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        failure = Failure(rank, message_of(error), isinstance(error, UserError), time.time())
        write_failure(settings.files, failure)
        sys.__excepthook__(kind, error, trace)

    sys.excepthook = record_failure
    return lock


def message_of(error: BaseException) -> str:
    """The text of an error. From a data loader worker a UserError comes with the worker's traceback before it."""
    if isinstance(error, UserError):
        return str(error).rpartition("UserError: ")[2].strip()
    return "".join(traceback.format_exception_only(error)).strip()


def init_distributed_early() -> None:
    """Joins DeepSpeed's process group on a CPU before the model is made, because ZeRO-3 divides weights while they are loaded.

    On GPUs accelerate does so in time. On a CPU it comes too late (accelerate 1.x, state.py), and DeepSpeed then takes each
    process for the only one. DeepSpeed would also compile a reduction through shared memory for a minute, which only its
    tensor-parallel layers use (deepspeed 0.19, comm/torch.py: inference_all_reduce); that is switched off.
    """
    from deepspeed import comm, ops

    ops.__compatible_ops__["deepspeed_shm_comm"] = False
    comm.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)
