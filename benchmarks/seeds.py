"""The demo with three seeds: what each model scores on the test split, how long it takes and how much memory it needs.

Each seed makes its own donors, graft, stages and evaluations in results/seed<N>, from nothing (the environments and the
digits stay); then the same command is given again, which has nothing to do. Memory is the sum of the resident sizes of the
workflow's processes, sampled twice a second; processor time, which other work on the machine hardly changes, is theirs too. At
the end, the dry run of the full recipe is timed.

By hand: .venv/bin/python benchmarks/seeds.py            # writes benchmarks/results/seeds.md
"""

import argparse
import csv
import datetime
import hashlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

SEEDS = (0, 1, 2)
SAMPLE_INTERVAL_S = 0.5
ROOT = Path(__file__).resolve().parent.parent
DECIDING_SECTIONS = ("donors", "graft", "stage1", "stage2", "demo")
LOCKED = ("ms-swift", "transformers", "torch", "evalscope")


@dataclass(frozen=True)
class SeedResult:
    """What one run of the demo gave; accuracies in 0..1."""

    seed: int
    wall_time_s: float
    processor_time_s: float
    repeated_wall_time_s: float
    peak_memory_gib: float
    num_questions: int
    accuracy: dict[str, float]


def resident_bytes(process: psutil.Process) -> int:
    """Resident size of a process and all below it; processes that end meanwhile count nothing."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_info().rss
        except psutil.Error:
            continue
    return total


def run_demo(seed: int) -> SeedResult:
    """Runs the demo from nothing with one seed."""
    results = Path(f"results/seed{seed}")
    for stale in (ROOT / results, ROOT / "work" / results):
        shutil.rmtree(stale, ignore_errors=True)
    for stale in (ROOT / "resources/donors").glob(f"demo-*-seed{seed}*"):
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    command = [
        ".venv/bin/snakemake", "--cores", "2", "--configfile", "config/demo.yaml",
        "--config", f"seed={seed}", f"results={results}",
    ]  # fmt: skip
    processor_time_before_s = processor_time_s()
    wall_time_s, peak = timed(command)
    used_s = processor_time_s() - processor_time_before_s
    repeated_wall_time_s, _ = timed(command)
    with open(ROOT / results / "eval/digits.csv", newline="", encoding="utf-8") as file:
        overall = [row for row in csv.DictReader(file) if row["group"] == "overall"]
    accuracy = {row["model"]: float(row["accuracy"]) for row in overall}
    num_questions = int(overall[0]["num_questions"])
    return SeedResult(seed, wall_time_s, used_s, repeated_wall_time_s, peak / 2**30, num_questions, accuracy)


def processor_time_s() -> float:
    """Of all processes that ended below this one, in user and system mode."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def timed(command: Sequence[str]) -> tuple[float, int]:
    """Runs a command from the repository root: its wall time in s and the peak of its resident bytes."""
    start, peak = time.monotonic(), 0
    child = psutil.Popen(command, cwd=ROOT)
    while child.poll() is None:
        peak = max(peak, resident_bytes(child))
        time.sleep(SAMPLE_INTERVAL_S)
    if child.returncode != 0:
        sys.exit(f"error: `{' '.join(command)}` failed; its message is above")
    return time.monotonic() - start, peak


def locked_versions() -> list[str]:
    """The pinned versions that decide the figures, read from the locks."""
    lines = "\n".join(path.read_text() for path in sorted((ROOT / "envs").glob("*.lock"))).splitlines()
    return sorted({line.split(" ")[0] for line in lines if line.split("==")[0] in LOCKED})


def settings_sha256(config: dict[str, Any]) -> str:
    """What decides the scores, as 16 hexadecimal digits: a page that was made with other settings says nothing of these."""
    text = json.dumps({name: config[name] for name in DECIDING_SECTIONS}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_settings() -> dict[str, Any]:
    """config/demo.yaml."""
    return dict(yaml.safe_load((ROOT / "config/demo.yaml").read_text(encoding="utf-8")))


def commit_id() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def markdown(results: Sequence[SeedResult], dry_run_wall_time_s: float, load_before: float, date: datetime.date) -> str:
    """The dated table, with what it was measured on."""
    models = list(results[0].accuracy)
    rows = [
        f"| {r.seed} | " + " | ".join(f"{r.accuracy[m]:.3f}" for m in models)
        + f" | {r.wall_time_s:.0f} | {r.processor_time_s:.0f} | {r.repeated_wall_time_s:.1f} | {r.peak_memory_gib:.2f} |"
        for r in results
    ]  # fmt: skip
    return "\n".join(
        [
            "# The demo with three seeds",
            "",
            f"{date.isoformat()}, commit {commit_id()}, {len(os.sched_getaffinity(0))} cores ({platform.machine()}), "
            f"Python {platform.python_version()}; {', '.join(locked_versions())}.",
            f"Accuracy on the {results[0].num_questions} held-out test pictures (four options, chance 0.25); settings were "
            "chosen on the dev split and by training losses, after earlier ones had failed a seed on the test split "
            "(docs/log.md).",
            "Wall time is that of everything but the environments: donors, graft, both stages, evaluations, report; "
            "processor time is that of all its processes; repeated is the same command again, with nothing to do.",
            f"Dry run of the full recipe (`snakemake -n`): {dry_run_wall_time_s:.1f} s.",
            f"Settings of config/demo.yaml ({', '.join(DECIDING_SECTIONS)}): `{settings_sha256(read_settings())}`.",
            f"Load average before: {load_before:.1f}. Made by `benchmarks/seeds.py`.",
            "",
            "| seed | " + " | ".join(models) + " | wall time, s | processor time, s | repeated, s | peak memory, GiB |",
            "|" + "---|" * (len(models) + 5),
            *rows,
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    results = [run_demo(seed) for seed in arguments.seeds]
    dry_run_wall_time_s, _ = timed([".venv/bin/snakemake", "results/eval/mmmu.csv", "-n", "--quiet", "all"])
    text = markdown(results, dry_run_wall_time_s, load_before, datetime.datetime.now(datetime.UTC).date())
    print(text)
    output_path = ROOT / "benchmarks/results/seeds.md"
    output_path.parent.mkdir(exist_ok=True)
    output_path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
