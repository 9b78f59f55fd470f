"""How long rows take to prepare and check, how much memory that needs, and what ms-swift's own encoding of the same rows takes.

A file of made-up conversations (two questions, two answers, one picture a row) over a few thousand pictures is prepared and
checked by the rules' own programs. Beside them, in the same run, one process encodes a sample of the same rows with their
pixels, as training does: what the check would cost if it did not leave the pixels out.

By hand, after `make demo`:
    .venv/bin/python benchmarks/rows.py                   # a million rows; writes benchmarks/results/rows.md
    .venv/bin/python benchmarks/rows.py --num-rows 20000
"""

import argparse
import datetime
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.results_page import write_section  # noqa: E402
from scripts.common.errors import UserError, run_program  # noqa: E402
from scripts.environments.installed_packages import versions_in  # noqa: E402

TITLE = "# Rows: preparation and check"
WORDS = (
    "the", "a", "picture", "shows", "person", "standing", "near", "red", "car", "on", "street", "with", "two", "dogs",
    "and", "large", "tree", "behind", "blue", "sky",
)  # fmt: skip
PICTURE_PX = 336
ENCODING = {"environment": {"MAX_PIXELS": 1_003_520}, "flags": {"max_length": 8192}}
NUM_SAMPLED = 2000
SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Measured:
    """A program's run: its seconds, and the most memory that it and its children had at once (shared pages counted once)."""

    seconds_s: float
    peak_mib: float


def write_rows(directory: Path, num_rows: int, num_pictures: int) -> Path:
    """The file of rows, and its pictures."""
    for number in range(num_pictures):
        colour = (number % 256, number // 256, 90)
        Image.new("RGB", (PICTURE_PX, PICTURE_PX), colour).save(directory / f"{number}.jpg")
    drawn = random.Random(0)

    def turn(role: str, num_words: int, tag: str = "") -> dict[str, str]:
        return {"role": role, "content": tag + " ".join(drawn.choices(WORDS, k=num_words))}

    with open(directory / "rows.jsonl", "w", encoding="utf-8") as file:
        for number in range(num_rows):
            messages = [turn("user", 12, "<image>\n"), turn("assistant", 40), turn("user", 10), turn("assistant", 40)]
            file.write(json.dumps({"messages": messages, "images": [f"{number % num_pictures}.jpg"]}) + "\n")
    return directory / "rows.jsonl"


def memory_mib(process: psutil.Process) -> float:
    """The proportional set sizes of a process and its children."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_full_info().pss
        except psutil.Error:  # it has just ended
            continue
    return total / 2**20


def measured(command: Sequence[str | Path]) -> Measured:
    """Runs a program to its end; raises UserError with what it said where it fails."""
    peak_mib, is_ended = 0.0, threading.Event()
    started_s = time.monotonic()
    process = subprocess.Popen([str(word) for word in command], cwd=ROOT, stderr=subprocess.PIPE, text=True)

    def watch() -> None:
        nonlocal peak_mib
        while not is_ended.wait(SECONDS_BETWEEN_LOOKS):
            try:
                peak_mib = max(peak_mib, memory_mib(psutil.Process(process.pid)))
            except psutil.Error:
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, said = process.communicate()
    is_ended.set()
    watcher.join()
    if process.returncode:
        raise UserError(f"{command[2]}: ended with exit code {process.returncode}: {said[-2000:]}")
    return Measured(time.monotonic() - started_s, peak_mib)


def lines(num_rows: int, num_pictures: int, steps: dict[str, Measured], alone_s: float) -> Iterator[str]:
    num_cores = len(os.sched_getaffinity(0))
    yield f"## {num_rows:,} rows, {num_pictures:,} pictures of {PICTURE_PX} x {PICTURE_PX}"
    yield ""
    versions = versions_in(ROOT / ".venvs/train/bin/python", ["ms-swift", "transformers", "torch"])
    yield (
        f"{datetime.date.today()}, {num_cores} cores ({platform.machine()}), "
        + ", ".join(f"{name}=={version}" for name, version in versions.items())
        + "."
    )
    yield ""
    yield "| step | minutes | memory at most, MiB | rows a second |"
    yield "|---|---|---|---|"
    for name, step in steps.items():
        yield f"| {name} | {step.seconds_s / 60:.1f} | {step.peak_mib:,.0f} | {num_rows / step.seconds_s:,.0f} |"
    check_s = steps["check_dataset"].seconds_s * num_cores / num_rows
    yield ""
    yield (
        f"A row costs the check {check_s * 1000:.2f} ms of one core, and ms-swift's own encoding, with pixels, "
        f"{alone_s * 1000:.2f} ms: {alone_s / check_s:.1f} times as much (of {NUM_SAMPLED:,} rows)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num-rows", type=int, default=1_000_000)
    parser.add_argument("--num-pictures", type=int, default=3_000)
    parser.add_argument("--model-dir", type=Path, default=ROOT / "results/demo/graft")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/rows.md")
    arguments = parser.parse_args()
    python = ROOT / ".venvs/train/bin/python"
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        rows_path = write_rows(directory, arguments.num_rows, arguments.num_pictures)
        prepared_path, origins_path = directory / "s.prepared.jsonl", directory / "s.origins.json"
        origins: list[str | Path] = ["--origins", origins_path]
        prepare = ["data.prepare_dataset", "--sources", json.dumps([str(rows_path)]), "--seed", "0", *origins]
        check = ["data.check_dataset", "--dataset", prepared_path, *origins, "--kept", directory / "s.jsonl"]
        check += ["--model-dir", arguments.model_dir, "--encoding", json.dumps(ENCODING)]
        steps = {
            "prepare_dataset": measured([python, "scripts", *prepare, "--output", prepared_path]),
            "check_dataset": measured([python, "scripts", *check, "--output", directory / "s.check.json"]),
        }
        with open(prepared_path, encoding="utf-8") as rows:
            sample = [line for line, _ in zip(rows, range(NUM_SAMPLED), strict=False)]
        (directory / "sample.jsonl").write_text("".join(sample), encoding="utf-8")
        alone = [arguments.model_dir, directory / "sample.jsonl", json.dumps(ENCODING)]
        finished = subprocess.run(
            [python, ROOT / "benchmarks/encoding_alone.py", *alone], cwd=ROOT, capture_output=True, text=True, check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        alone_s = float(finished.stdout.split()[-1])
    section = "\n".join(lines(arguments.num_rows, arguments.num_pictures, steps, alone_s))
    write_section(arguments.output, TITLE, section)
    print(section)


if __name__ == "__main__":
    run_program(main)
