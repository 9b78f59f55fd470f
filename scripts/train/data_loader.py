"""The data loader's workers: they end quietly, and name the row that failed."""

import atexit
import mmap
import multiprocessing
import os
import signal
from types import FrameType
from typing import Any

import torch
from swift.dataset import LazyLLMDataset
from swift.template import MaxLengthError

from scripts.common.errors import UserError

_NUM_CHARACTERS_SHOWN = 200


class QuietWorker:
    """Initialises a data loader worker so that it ignores the stop signals until its trainer is ending.

    A scheduler signals every process, and a worker that dies of SIGTERM ends its trainer before the trainer has saved. When
    it ends itself, the trainer sends its workers the same signal. They share one byte, `ending`, which is 1 from then on.
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
    """Makes every data loader start its workers as QuietWorker. Only forked workers share memory; others stay as they are."""
    ending = mmap.mmap(-1, 1)

    def mark_ending() -> None:
        ending[0] = 1

    # Called before multiprocessing's own, which ends the workers and waits for them.
    atexit.register(mark_ending)
    loader = torch.utils.data.DataLoader
    original = loader.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        context = self.multiprocessing_context or multiprocessing.get_context()
        if self.num_workers > 0 and context.get_start_method() == "fork":
            self.worker_init_fn = QuietWorker(self.worker_init_fn, ending)

    loader.__init__ = __init__


def described_row(row: dict[str, Any]) -> str:
    """A row of the training set by its pictures or its first words; its number is unknown because ms-swift shuffles rows."""
    images = [image.get("path") or "inline" if isinstance(image, dict) else image for image in row.get("images") or []]
    return f"images {images}" if images else f"{str(row.get('messages'))[:_NUM_CHARACTERS_SHOWN]}…"


def name_failing_rows() -> None:
    """Makes the error for a row that cannot be read, or is too long, say which row it is."""
    original = LazyLLMDataset.__getitem__

    def __getitem__(self: Any, index: Any) -> Any:
        try:
            return original(self, index)
        except Exception as error:
            remedy = "; set max_length or truncation_strategy" if isinstance(error, MaxLengthError) else ""
            raise UserError(
                f"training set, the row with {described_row(self.dataset[index])}: {type(error).__name__}: {error}; "
                f"correct or remove it{remedy}"
            ) from error

    LazyLLMDataset.__getitem__ = __getitem__
