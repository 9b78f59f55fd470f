"""One launcher a work directory, none beside a trainer that still lives, and signals are remembered instead of died of."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.processes import wait_for
from scripts.common.errors import UserError
from scripts.common.locks import pids_with_open
from scripts.common.ownership import owned
from scripts.common.processes import is_alive, this_process
from scripts.train.trainer_process import LAUNCHER_LOCK_NAME, RANKS_LOCK_NAME, StopRequests, Trainer, exclusive_work_dir

LOCKS_OF_A_TRAINING = {LAUNCHER_LOCK_NAME: fcntl.LOCK_EX, RANKS_LOCK_NAME: fcntl.LOCK_SH}


def test_a_process_is_known_by_pid_and_start_time() -> None:
    me = this_process()
    assert is_alive(me)
    assert not is_alive(me | {"start_time": "0"})  # the same number, another process
    assert not is_alive(me | {"pid": 2**22 + 1})
    assert is_alive(me | {"pid": 2**22 + 1, "host": "elsewhere"})  # cannot be known, so assumed


def test_a_dead_process_that_nobody_waited_for_is_dead() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended and stays a zombie
    assert not is_alive(this_process() | {"pid": child.pid})
    child.wait()


def hold_in_another_process(path: Path, kind: int) -> subprocess.Popen[str]:
    """A process that has a lock until it is killed."""
    code = f"import fcntl, time; f = open({str(path)!r}, 'a'); fcntl.flock(f, {kind}); print('held', flush=True); "
    process = subprocess.Popen([sys.executable, "-c", code + "time.sleep(3600)"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def killing(holder: subprocess.Popen[str]) -> Callable[[], bool]:
    """Whether to stop waiting, which only those who wait ask: no, but the holder dies of it."""

    def kill() -> bool:
        holder.kill()
        holder.wait()
        return False

    return kill


def test_a_second_launcher_names_the_one_it_waits_for_and_goes_on_when_that_one_has_died(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = hold_in_another_process(tmp_path / LAUNCHER_LOCK_NAME, fcntl.LOCK_EX)
    (tmp_path / LAUNCHER_LOCK_NAME).write_text(json.dumps({"pid": other.pid, "host": "this"}))
    with exclusive_work_dir(tmp_path, killing(other)):
        assert other.returncode is not None, "it did not wait"
    assert f"in use by process {other.pid} on this; waiting for it to end" in capsys.readouterr().err


def test_a_launcher_waits_for_a_trainer_that_outlived_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = hold_in_another_process(tmp_path / RANKS_LOCK_NAME, fcntl.LOCK_SH)
    (tmp_path / "watch").mkdir()
    stat = Path(f"/proc/{trainer.pid}/stat").read_text().rpartition(")")[2].split()
    me = this_process() | {"pid": trainer.pid, "start_time": stat[19]}
    (tmp_path / "watch" / "rank0.json").write_text(json.dumps(me))
    with exclusive_work_dir(tmp_path, killing(trainer)):
        assert trainer.returncode is not None, "it did not wait"
    assert f"in use by trainer process {trainer.pid}" in capsys.readouterr().err


def test_waiting_can_be_stopped(tmp_path: Path) -> None:
    other = hold_in_another_process(tmp_path / LAUNCHER_LOCK_NAME, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="stopped while waiting"), exclusive_work_dir(tmp_path, lambda: True):
        pass
    other.kill()
    other.wait()


def test_signals_are_remembered_and_handlers_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequests().listening() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        assert stop.received == [signal.SIGTERM, signal.SIGINT]
        assert not stop.is_urgent  # one Ctrl-C can arrive twice
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_later_ctrl_c_means_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.train.trainer_process._SAME_CTRL_C_S", 0.05)
    with StopRequests().listening() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_urgent


def start_trainer(tmp_path: Path, code: str, *, has_agent: bool) -> Trainer:
    with open(tmp_path / "log", "ab") as log:
        trainer = Trainer([sys.executable, "-c", code], os.environ, log, has_agent=has_agent)
    wait_for(lambda: "ready" in (tmp_path / "log").read_text())
    return trainer


def wait_for_end(trainer: Trainer) -> int:
    wait_for(lambda: trainer.exit_code is not None, "the trainer's end")
    assert trainer.exit_code is not None
    return trainer.exit_code


def test_an_agent_outlives_the_signals_that_everybody_gets_and_ends_on_its_own(tmp_path: Path) -> None:
    code = "import time; print('ready', flush=True); time.sleep(3600)"
    trainer = start_trainer(tmp_path, code, has_agent=True)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        trainer._process.send_signal(number)
    time.sleep(0.3)
    assert trainer.exit_code is None
    trainer.end_before_training()
    assert wait_for_end(trainer) == -signal.SIGUSR2


def test_a_lone_trainer_is_ended_by_sigterm(tmp_path: Path) -> None:
    trainer = start_trainer(tmp_path, "import time; print('ready', flush=True); time.sleep(3600)", has_agent=False)
    trainer.end_before_training()
    assert wait_for_end(trainer) == -signal.SIGTERM


def test_a_lone_trainer_gets_sigterm_when_its_launcher_is_killed(tmp_path: Path) -> None:
    inner = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('told', flush=True), sys.exit()))\n"
        "print('ready', flush=True)\ntime.sleep(3600)"
    )
    outer = (
        "import os, sys, time\nfrom pathlib import Path\nfrom scripts.train.trainer_process import Trainer\n"
        f"log = open({str(tmp_path / 'log')!r}, 'ab')\n"
        f"Trainer([sys.executable, '-c', {inner!r}], os.environ, log, has_agent=False)\ntime.sleep(3600)"
    )
    root = str(Path(__file__).resolve().parents[3])
    launcher = subprocess.Popen([sys.executable, "-c", outer], env=os.environ | {"PYTHONPATH": root})
    log = tmp_path / "log"
    wait_for(lambda: log.exists() and "ready" in log.read_text())
    launcher.kill()
    launcher.wait()
    wait_for(lambda: "told" in log.read_text())


def test_a_trainer_inherits_the_locks_of_the_outputs(tmp_path: Path) -> None:
    with owned(tmp_path / "checkpoint"):
        trainer = start_trainer(tmp_path, "import time; print('ready', flush=True); time.sleep(3600)", has_agent=False)
        assert pids_with_open(tmp_path / ".checkpoint.lock") == [trainer._process.pid]
    trainer.kill([])


def test_a_launcher_waits_for_what_is_left_of_a_training_with_other_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("other", "live"):
        (tmp_path / name).mkdir()
    left = hold_in_another_process(tmp_path / "other" / RANKS_LOCK_NAME, fcntl.LOCK_SH)
    lives = [hold_in_another_process(tmp_path / "live" / name, kind) for name, kind in LOCKS_OF_A_TRAINING.items()]
    with exclusive_work_dir(tmp_path / "mine", killing(left)):
        assert left.returncode is not None, "it did not wait"
    errors = capsys.readouterr().err
    assert f"{tmp_path / 'other'}: in use by a trainer; waiting for it to end" in errors
    assert "live" not in errors
    for process in lives:
        process.kill()
        process.wait()


def test_everything_can_be_ended_at_once_ranks_in_sessions_of_their_own_too(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'], start_new_session=True)\n"
        "print(child.pid, flush=True)\nprint('ready', flush=True)\ntime.sleep(3600)"
    )
    trainer = start_trainer(tmp_path, code, has_agent=True)
    pid = int((tmp_path / "log").read_text().split()[0])
    start_time = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    rank = this_process() | {"pid": pid, "start_time": start_time}
    assert is_alive(rank)
    trainer.kill([rank, rank | {"start_time": "0"}])
    wait_for(lambda: not is_alive(rank))
    assert trainer.exit_code == -signal.SIGKILL
