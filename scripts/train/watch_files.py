"""The small files in RUN_DIR/watch by which the launcher and the trainer's callback tell each other what they need.

The launcher (scripts/train/start.py) writes settings.json and, to stop a training, `stop`. The callback
(scripts/train/watch.py), which runs inside the trainer, writes the others.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.common.files import read_if_whole, write_bytes_atomically, write_json_atomically
from scripts.common.reading import read_object
from scripts.common.settings import settings_from

WATCH_CALLBACK = "vlgraft_watch"  # the callback's name in ms-swift
WATCH_VARIABLE = "VLGRAFT_WATCH"  # the environment variable that names settings.json


@dataclass(frozen=True)
class WatchDir:
    """Where each file lies."""

    path: Path

    @property
    def run_dir(self) -> Path:
        """Of the training (scripts/train/run.py)."""
        return self.path.parent

    @property
    def settings(self) -> Path:
        return self.path / "settings.json"

    @property
    def begin(self) -> Path:
        return self.path / "begin.json"

    @property
    def progress(self) -> Path:
        return self.path / "progress.json"

    @property
    def stop(self) -> Path:
        """Its existence asks the trainer to save and stop."""
        return self.path / "stop"

    def rank(self, number: int) -> Path:
        """Pid, host and start time of a rank (scripts/common/processes.py: this_process)."""
        return self.path / f"rank{number}.json"

    def failure(self, number: int) -> Path:
        return self.path / f"failure-rank{number}.json"

    def steps(self, number: int) -> Path:
        """One line for each step of a rank (scripts/train/step_records.py)."""
        return self.path / f"steps-rank{number}.jsonl"

    @property
    def ranks(self) -> list[Path]:
        return sorted(self.path.glob("rank*.json"))

    @property
    def failures(self) -> list[Path]:
        return sorted(self.path.glob("failure-rank*.json"))

    @property
    def all_steps(self) -> list[Path]:
        return sorted(self.path.glob("steps-rank*.jsonl"))

    def processes(self) -> list[dict[str, Any]]:
        """The ranks' processes, as far as their files can be read."""
        return [process for process in map(read_if_whole, self.ranks) if process]

    def clear(self) -> None:
        """Removes what an earlier start left, all but the records of its steps."""
        for path in [self.begin, self.progress, self.stop, *self.failures, *self.ranks]:
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class WatchSettings:
    """settings.json: what the callback must know of this start."""

    freeze_vit: bool
    freeze_aligner: bool
    freeze_llm: bool
    deepspeed: str | None
    custom_freezing: bool  # other flags than these three choose what trains
    watch_dir: str
    stop_file: str
    launcher: Mapping[str, Any]  # its process (scripts/common/processes.py: this_process)
    model_dir: str
    dataset: str
    num_rows: int
    resume_from: str | None

    @property
    def files(self) -> WatchDir:
        return WatchDir(Path(self.watch_dir))

    @property
    def resume_dir(self) -> Path | None:
        return Path(self.resume_from) if self.resume_from else None


@dataclass(frozen=True)
class Begin:
    """begin.json: written by rank 0 once the weights are checked and the first step may begin."""

    first_step: int
    max_steps: int
    num_processes: int
    num_parameters: dict[str, int]  # by module group
    num_trainable_parameters: dict[str, int]
    checkpoint_bytes: int  # at least so many
    trainable: list[str]  # names of tensors in memory
    samples_per_step: list[int]  # over all ranks


@dataclass(frozen=True)
class Progress:
    """progress.json: how far rank 0 is, rewritten at each step. None: not known yet."""

    phase: str
    step: int
    max_steps: int
    num_samples: int | None = None  # of all ranks, since this start
    loss: float | None = None


@dataclass(frozen=True)
class Failure:
    """failure-rankN.json: the error that ended a rank. The first rank to fail is the cause; the others follow it."""

    rank: int
    message: str
    is_user_error: bool
    time_s: float  # since the epoch


def write_watch_settings(settings: WatchSettings) -> None:
    write_json_atomically(settings.files.settings, asdict(settings))


def read_watch_settings(path: Path) -> WatchSettings:
    return read_object(WatchSettings, path)


def write_begin(files: WatchDir, begin: Begin) -> None:
    write_json_atomically(files.begin, asdict(begin))


def read_begin(files: WatchDir) -> Begin:
    return read_object(Begin, files.begin)


def write_progress(files: WatchDir, progress: Progress) -> None:
    """Not synced, because it is written at each step."""
    known = {key: value for key, value in asdict(progress).items() if value is not None}
    write_bytes_atomically(files.progress, json.dumps(known).encode(), is_synced=False)


def read_progress(files: WatchDir) -> Progress | None:
    """None before rank 0 has written it."""
    value = read_if_whole(files.progress)
    return settings_from(Progress, value, str(files.progress)) if value else None


def write_failure(files: WatchDir, failure: Failure) -> None:
    write_json_atomically(files.failure(failure.rank), asdict(failure))


def read_first_failure(files: WatchDir) -> Failure | None:
    """The failure of the rank that failed first, if one could still write it down."""
    failures = [read_object(Failure, path) for path in files.failures]
    return min(failures, key=lambda failure: failure.time_s, default=None)
