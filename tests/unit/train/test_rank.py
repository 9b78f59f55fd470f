"""A rank records its process, and its error in the words that help."""

import subprocess
import sys
from pathlib import Path

from helpers.stage import make_run
from scripts.common.errors import UserError
from scripts.common.input_files import read_json
from scripts.train.rank import message_of
from scripts.train.start import watch_settings_of
from scripts.train.watch_files import WATCH_VARIABLE, read_first_failure, write_watch_settings


def test_an_error_from_a_data_loader_worker_loses_the_workers_traceback() -> None:
    text = "Caught UserError in DataLoader worker process 0.\nTraceback …\nscripts.common.errors.UserError: row 3: broken\n"
    assert message_of(UserError(text)) == "row 3: broken"
    assert message_of(UserError("row 3: broken")) == "row 3: broken"
    assert message_of(ValueError("of torch")) == "ValueError: of torch"


def rank_program(root: Path, run_dir: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Runs a rank of a training whose launcher is this test."""
    run = make_run(run_dir)
    run.watch.path.mkdir(exist_ok=True)
    write_watch_settings(watch_settings_of(run, None))
    program = (
        f"from scripts.train.rank import register_rank, watch_settings\nlock = register_rank(watch_settings())\n{code}"
    )
    environment = {"PYTHONPATH": str(root), WATCH_VARIABLE: str(run.watch.settings), "RANK": "1"}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)


def test_a_rank_that_fails_leaves_its_process_and_its_error(root: Path, tmp_path: Path) -> None:
    finished = rank_program(root, tmp_path, "raise ValueError('of torch')")
    assert finished.returncode == 1
    assert "ValueError: of torch" in finished.stderr
    watch = make_run(tmp_path).watch
    assert read_json(watch.rank(1)).keys() == {"pid", "host", "pid_namespace", "start_time"}
    failure = read_first_failure(watch)
    assert failure is not None
    assert (failure.rank, failure.message, failure.is_user_error) == (1, "ValueError: of torch", False)


def test_a_rank_that_ends_well_leaves_no_failure(root: Path, tmp_path: Path) -> None:
    assert rank_program(root, tmp_path, "").returncode == 0
    assert read_first_failure(make_run(tmp_path).watch) is None
