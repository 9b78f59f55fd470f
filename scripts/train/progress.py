"""The launcher's lines about a training's progress, from the files of the trainer's callback."""

import time

from scripts.common.logger import log
from scripts.common.units import duration, size
from scripts.train.tensor_changes import GROUPS
from scripts.train.watch_files import Begin, Progress, WatchDir, read_begin, read_progress

SECONDS_BETWEEN_LINES = 5.0


class ProgressLog:
    """Logs what trains when the training begins, and every few seconds how far it is."""

    def __init__(self, stage: str, watch: WatchDir) -> None:
        self.stage, self.watch = stage, watch
        self.started_s = time.monotonic()
        self.next_line_s = self.started_s + SECONDS_BETWEEN_LINES
        self.begin: Begin | None = None
        self.begun_s = 0.0

    def update(self) -> None:
        """Logs what is new since the last call."""
        now_s = time.monotonic()
        if self.begin is None and self.watch.begin.exists():
            self.begin, self.begun_s = read_begin(self.watch), now_s
            self._log_begin(self.begin)
        if now_s >= self.next_line_s:
            self.next_line_s = now_s + SECONDS_BETWEEN_LINES
            log(f"{self.stage}: {self._line(read_progress(self.watch), now_s)}")

    def _log_begin(self, begin: Begin) -> None:
        log(f"{self.stage}: every weight is the input's, bit for bit")
        log(f"{self.stage}: each checkpoint takes at least {size(begin.checkpoint_bytes)} on the disk")
        for group in GROUPS:
            trainable, total = begin.num_trainable_parameters[group], begin.num_parameters[group]
            mark = "[TRAINABLE]" if trainable else "[FROZEN]   "
            log(f"{self.stage}: {mark} {group}: {trainable:,} of {total:,} parameters train")

    def _line(self, progress: Progress | None, now_s: float) -> str:
        if self.begin is None or progress is None:
            phase = progress.phase if progress else "ms-swift is starting"
            return f"{phase} ({now_s - self.started_s:.0f} s)"
        text = f"{progress.phase}, step {progress.step}/{progress.max_steps}"
        if progress.loss is not None:
            text += f", loss {progress.loss:.4f}"
        elapsed_s, num_done = now_s - self.begun_s, progress.step - self.begin.first_step
        if num_done and elapsed_s > 0 and progress.num_samples is not None:
            left_s = elapsed_s / num_done * (progress.max_steps - progress.step)
            text += f", {progress.num_samples / elapsed_s:.1f} samples/s, about {duration(left_s)} left"
        return text
