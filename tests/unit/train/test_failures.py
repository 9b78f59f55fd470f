"""The message about a trainer that failed: the cause, and the lines that belong to it."""

import pytest

from scripts.train import failures
from scripts.train.complete_checkpoints import mark_complete
from scripts.train.failures import failure_message, full_disk_message, rendezvous_failed
from scripts.train.run import Run
from scripts.train.watch_files import Begin, Failure, write_begin, write_failure


def test_a_ranks_own_error_is_the_message(run: Run) -> None:
    for rank, time_s in ((1, 5.0), (0, 6.0)):
        write_failure(run.watch, Failure(rank, f"what rank {rank} found", is_user_error=True, time_s=time_s))
    assert failure_message(run, 1, 0) == f"stage1: what rank 1 found (all output: {run.log})"


def test_without_one_the_first_exception_of_this_start_and_the_last_lines_are_shown(run: Run) -> None:
    old = "ValueError: of an earlier start\n"
    lines = [
        "Traceback (most recent call last):",
        "[rank1]: torch.OutOfMemoryError: CUDA out of memory",
        "RuntimeError: later",
    ]
    run.log.write_text(old + "\n".join(lines) + "\n")
    message = failure_message(run, -9, len(old))
    assert message.startswith(
        "stage1: ms-swift ended with signal 9 (SIGKILL: from outside, mostly because memory ran out): [rank1]: "
        "torch.OutOfMemoryError: CUDA out of memory\n"
    )
    assert "earlier start" not in message
    assert message.endswith(f"all output: {run.log}")


def test_of_a_rank_that_failed_first_the_last_lines_are_shown_and_not_those_of_the_others(run: Run) -> None:
    write_failure(run.watch, Failure(2, "OSError: no space", is_user_error=False, time_s=1.0))
    run.rank_logs_dir.mkdir()
    run.log.write_text("[rank2]: its own line\n" + "[rank1]: an echo\n" * 20)
    assert failure_message(run, 1, 0) == (
        "stage1: ms-swift ended with exit status 1: OSError: no space\n  [rank2]: its own line\n"
        f"  all output: {run.log}; of each rank: {run.rank_logs_dir}"
    )


def test_only_agents_that_never_had_a_rank_failed_to_meet(run: Run) -> None:
    warning = (
        "[W1125] The node has failed to shutdown the rendezvous due to an error of type RendezvousConnectionError.\n"
    )
    run.log.write_text(warning)
    assert not rendezvous_failed(run, 0)
    error = (
        "torch.distributed.elastic.rendezvous.api.RendezvousConnectionError: The connection to the store has failed.\n"
    )
    run.log.write_text(warning + error)
    assert rendezvous_failed(run, 0)
    assert not rendezvous_failed(run, run.log.stat().st_size)
    run.watch.rank(0).touch()
    assert not rendezvous_failed(run, 0)


def test_a_checkpoint_that_a_full_disk_cut_off_is_removed_and_the_last_whole_one_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "free_bytes", lambda directory: 5_000_000_000)
    write_begin(run.watch, Begin(0, 4, 1, {}, {}, 36_050_000_000, [], []))
    for step in (10, 20):
        checkpoint_dir = run.trainer_dir / f"checkpoint-{step}"
        checkpoint_dir.mkdir(parents=True)
        (checkpoint_dir / "model.safetensors").write_bytes(b"weights")
    mark_complete(run.trainer_dir / "checkpoint-10")
    run.log.write_text("ValueError: something else\n")
    assert full_disk_message(run, 0) is None
    run.log.write_text("OSError: [Errno 28] No space left on device\n")
    message = full_disk_message(run, 0)
    assert message is not None
    assert message.startswith(f"stage1: {run.trainer_dir}/checkpoint-20: there was no room to write it")
    assert "leaves 5.00 GB free on the disk; a checkpoint takes at least 36.05 GB" in message
    assert "set stage1.flags.save_total_limit: 2" in message
    assert "which goes on from step 10" in message
    assert [path.name for path in run.trainer_dir.iterdir()] == ["checkpoint-10"]
