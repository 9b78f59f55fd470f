"""One rank of a training: it records its pid and, later, its error, and meets the others."""

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
from scripts.common.files import read_json, write_json_atomically
from scripts.common.processes import die_with_parent, is_alive, this_process
from scripts.train.command import WATCH_VARIABLE
from scripts.train.trainer_process import RANKS_LOCK_NAME

# Handled from the first step on; before it they end the process, which has nothing to save.
TRAINER_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def join_the_run() -> IO[str]:
    """What a rank does first: end with its parent, hold the ranks' lock, leave word of itself and of its failure."""
    settings = read_json(Path(os.environ[WATCH_VARIABLE]))
    watch_dir = Path(settings["watch_dir"])
    rank = int(os.environ.get("RANK", "0"))
    for number in TRAINER_STOP_SIGNALS:
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
