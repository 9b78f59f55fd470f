"""Encodes the rows of a dataset in several processes, each of which reads the file for itself."""

import gc
import os
import signal
from collections.abc import Collection, Iterator
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.json_text import json_value
from scripts.common.processes import die_with_parent
from scripts.data.occasional_log import OccasionalLog
from scripts.data.training_encoding import EncodedRow, RowEncoder

NUM_ROWS_PER_BATCH = 512
MIN_NUM_ROWS_FOR_WORKERS = 20_000  # below that it is some seconds' work

Numbered = tuple[int, EncodedRow]  # a row's number, from 1


def encode_rows(
    path: Path, encoder: RowEncoder, num_rows: int, skipped: Collection[int], num_workers: int
) -> Iterator[Numbered]:
    """Every row but the skipped ones; in their order where there are too few for several processes."""
    if num_workers == 1 or num_rows < MIN_NUM_ROWS_FOR_WORKERS:
        yield from _share(path, encoder, skipped, 0, 1)
        return
    context = get_context("fork")  # the encoder is large, and knows the sizes of all pictures
    gc.freeze()  # else the first collection writes to all objects, and each process gets a copy of the libraries' own
    workers: list[Any] = []
    receivers: list[Any] = []  # connections; an ended one is taken out
    for number in range(num_workers):
        receiver: Any
        receiver, sender = context.Pipe(duplex=False)
        arguments = (sender, path, encoder, skipped, number, num_workers, os.getpid())
        worker = context.Process(target=_send, args=arguments, daemon=True)
        worker.start()
        sender.close()
        workers.append(worker)
        receivers.append(receiver)
    progress, num_encoded = OccasionalLog(), 0
    while receivers:
        for receiver in wait(receivers):
            try:
                batch = receiver.recv()
            except EOFError:
                receivers.remove(receiver)
                continue
            num_encoded += len(batch)
            progress(f"{path}: {num_encoded} rows encoded")
            yield from batch
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise UserError(
                f"{path}: a process that encoded rows ended with exit code {worker.exitcode}; expected 0; see above, and "
                "with -9 ask for more memory"
            )


def _send(
    sender: Connection,
    path: Path,
    encoder: RowEncoder,
    skipped: Collection[int],
    number: int,
    num_workers: int,
    parent_pid: int,
) -> None:
    die_with_parent(signal.SIGKILL, parent_pid)
    share = _share(path, encoder, skipped, number, num_workers)
    while batch := list(islice(share, NUM_ROWS_PER_BATCH)):
        sender.send(batch)


def _share(
    path: Path, encoder: RowEncoder, skipped: Collection[int], worker: int, num_workers: int
) -> Iterator[Numbered]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if number // NUM_ROWS_PER_BATCH % num_workers == worker and number not in skipped:
                yield number, encoder.encoded(json_value(line))
