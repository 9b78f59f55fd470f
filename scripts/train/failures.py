"""Why the trainer failed, from the files of its ranks and its output."""

import re
from pathlib import Path

from scripts.common.disk_space import free_bytes
from scripts.common.units import size
from scripts.train.checkpoint_space import disk_space_remedy
from scripts.train.command import RANK_PREFIX
from scripts.train.complete_checkpoints import last_complete, remove_incomplete, step_of
from scripts.train.exit_status import ending, rank_ending
from scripts.train.run import Run
from scripts.train.watch_files import read_begin, read_first_failure

NUM_LOG_LINES_SHOWN = 15

# A disk with less is full: the log can hardly grow, so it may not say so itself.
FULL_DISK_BYTES = 2**20

# A full disk, and an exhausted quota, in the output of a program. The last is torch.save's, which does not give the reason of a
# short write (caffe2/serialize/inline_container.cc).
NO_ROOM_TEXT = re.compile(r"No space left on device|Disk quota exceeded|inline_container\.cc.*unexpected pos")

# What torch.distributed.run (2.13) ends with when its agents cannot meet; its warnings of the same error lack the colon.
RENDEZVOUS_ERROR = re.compile(r"^[\w.]*RendezvousConnectionError: ", re.MULTILINE)

# The last line of a Python traceback, with or without the rank before it; torch adds it, too, and then it is there twice.
EXCEPTION_LINE = re.compile(r"^(\[rank\d+\]:\s*)*[\w.]+(Error|Exception|Interrupt|Exit)\b.*")


def output_since(log: Path, log_start: int) -> list[str]:
    """The lines of one start's output; `log_start` is the log's size in bytes before it."""
    with open(log, "rb") as log_file:
        log_file.seek(log_start)
        return log_file.read().decode(errors="replace").splitlines()


def full_disk_message(run: Run, log_start: int) -> str | None:
    """Error text if a full disk has cut a checkpoint off, else None. Removes that checkpoint, or the disk would stay full."""
    is_full = free_bytes(run.run_dir) < FULL_DISK_BYTES or any(
        map(NO_ROOM_TEXT.search, output_since(run.log, log_start))
    )
    removed = remove_incomplete(run.trainer_dir) if is_full else []
    if not removed:
        return None
    num_bytes = read_begin(run.watch).checkpoint_bytes
    last = last_complete(run.trainer_dir)
    remedy = disk_space_remedy(f"{run.stage}.flags.save_total_limit", run.settings.flags.get("save_total_limit"))
    goes_on = f"goes on from step {step_of(last)}" if last else "begins anew"
    return (
        f"{run.stage}: {removed[-1]}: there was no room to write it, on the disk or in a quota; removed again, which leaves "
        f"{size(free_bytes(run.run_dir))} free on the disk; a checkpoint takes at least {size(num_bytes)}; "
        f"{remedy}; then give the same command again, which {goes_on} (all output: {run.log})"
    )


def rendezvous_failed(run: Run, log_start: int) -> bool:
    """Whether this start ended before any rank began, because the nodes' agents could not meet."""
    has_begun = bool(run.watch.ranks)
    return not has_begun and any(RENDEZVOUS_ERROR.match(line) for line in output_since(run.log, log_start))


def failure_message(run: Run, exit_code: int, log_start: int) -> str:
    """The error of the rank that failed first, if it could record it, and the last lines of output."""
    failure = read_first_failure(run.watch)
    if failure and failure.is_user_error:
        return f"{run.stage}: {failure.message} (all output: {run.log})"
    lines = shown = output_since(run.log, log_start)
    if failure:
        reason = failure.message
        shown = [line for line in lines if line.startswith(RANK_PREFIX.format(failure.rank))] or lines
    else:
        reason = next((line for line in lines if EXCEPTION_LINE.match(line)), "")
    how = ending(exit_code)
    if rank := rank_ending(lines):
        how += f", after a rank was ended by {rank}"
    tail = "\n".join(f"  {line}" for line in shown[-NUM_LOG_LINES_SHOWN:])
    ranks = f"; of each rank: {run.rank_logs_dir}" if run.rank_logs_dir.exists() else ""
    return f"{run.stage}: ms-swift ended with {how}: {reason}\n{tail}\n  all output: {run.log}{ranks}"
