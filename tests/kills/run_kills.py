#!/usr/bin/env python3
"""Kills a short demo at random moments, in all its steps, and compares what comes out with an undisturbed run: `make kills`.

In each round a run is started from nothing and killed several times: Snakemake alone, so that its programs outlive it; one
program; a child of a program, as a trainer or a model server; everything at once; or it is interrupted as from a terminal.
Some of the starts have other settings and the same results directory. Then the command is given once more. It must end
with the very weights, ledger, records and tables of the undisturbed run, leave nothing to clean and nothing running, and
have nothing to do when it is given again. The moments come from a seed, so a round can be repeated.

By hand, from the repository root:
  .venv/bin/python tests/kills/run_kills.py --num-kills 60
"""

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from helpers.short_demo import RESULTS, short_demo, sums_of  # noqa: E402 - started by its path
from helpers.workflow_run import WorkflowRun, make_checkout  # noqa: E402

SHORT = {"results": "results/short", **short_demo(num_steps=30, models=["graft", "stage2"])}
OTHER = {
    "graft": {"max_shard_gb": 0.0005},
    "stage1": {"flags": {"max_steps": 500}},
    "stage2": {"flags": {"learning_rate": 0.002}},
    "evaluate": {"vlmevalkit": {"max_tokens": 8}},
}
KINDS = ("snakemake", "program", "child of a program", "everything", "terminal")
COMPARED = (*RESULTS, "eval/*/*.jsonl", "graft/*.json", "data/*.json*")
# What must not be left beside the results.
LEFTOVERS = ("**/.*.tmp", "**/.*.lock", "**/.*.new", "**/.*.old", "**/*.partial")
NUM_KILLS_PER_ROUND = 8  # each start goes on from what the killed one left, so that all steps are met


@dataclass
class Checkout:
    """A copy of the tree in which the short demo runs."""

    workflow: WorkflowRun
    names_killed: Counter[str] = field(default_factory=Counter)

    @property
    def directory(self) -> Path:
        return self.workflow.directory

    @property
    def results_dir(self) -> Path:
        return self.directory / SHORT["results"]

    def start(self, *overlays: str, log_name: str = "snakemake.log") -> subprocess.Popen[bytes]:
        command = self.workflow.command("--configfile", "config/demo.yaml", "short.yaml", *overlays)
        with open(self.directory / log_name, "ab") as log:
            return subprocess.Popen(command, cwd=self.directory, stdout=log, stderr=log, start_new_session=True)

    def processes(self) -> list[psutil.Process]:
        """All that still runs here, whoever its parent is."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(self.directory):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def remove_results(self) -> None:
        for name in ("results", "work", "logs", "resources", ".snakemake"):
            shutil.rmtree(self.directory / name, ignore_errors=True)


def short_checkout(directory: Path) -> Checkout:
    workflow = make_checkout(ROOT, directory)
    (directory / "short.yaml").write_text(yaml.safe_dump(SHORT))
    (directory / "other.yaml").write_text(yaml.safe_dump(OTHER))
    return Checkout(workflow)


def program_name(process: psutil.Process) -> str | None:
    """`subject.program`, where the process is one of ours."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return None
    for word, following in itertools.pairwise(words):
        if Path(word).name == "scripts" and "." in following:
            return following
    return None


def kill(checkout: Checkout, run: subprocess.Popen[bytes], kind: str, choice: random.Random) -> str | None:
    """Kills, and says what; None where there was nothing of that kind at this moment."""
    try:
        below = psutil.Process(run.pid).children(recursive=True)
    except psutil.Error:
        return None
    programs = {process: name for process in below if (name := program_name(process))}
    running = ", ".join(sorted(set(programs.values()))) or "no program"
    if kind == "snakemake":
        run.kill()
    elif kind == "everything":
        os.killpg(run.pid, signal.SIGKILL)
    elif kind == "terminal":
        os.killpg(run.pid, signal.SIGINT)
    else:
        victims = list(programs)
        if kind == "child of a program":
            victims = [child for program in programs for child in program.children(recursive=True)]
        if not victims:
            return None
        choice.choice(victims).kill()
    checkout.names_killed.update(set(programs.values()) or {"no program"})
    return f"{kind} while {running} ran"


def disturbed_round(checkout: Checkout, choice: random.Random, whole_s: float) -> list[str]:
    """Kills a run some times; says what was killed, and when."""
    killed = []
    for _ in range(NUM_KILLS_PER_ROUND):
        overlays = ["other.yaml"] if choice.random() < 0.4 else []
        run = checkout.start(*overlays)
        moment_s, kind = choice.uniform(2.0, whole_s * 0.3), choice.choice(KINDS)
        try:
            run.wait(moment_s)
        except subprocess.TimeoutExpired:
            if what := kill(checkout, run, kind, choice):
                killed.append(f"{what}, after {moment_s:.0f} s{', other settings' if overlays else ''}")
            elif run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    return killed


def faults_of(checkout: Checkout, expected: dict[str, str]) -> list[str]:
    """What is wrong after the last, undisturbed command."""
    status = checkout.start().wait()
    if status:
        return [f"the last command ended with status {status}; see {checkout.directory / 'snakemake.log'}"]
    found, faults = sums_of(checkout.results_dir, COMPARED), []
    faults += [f"{name}: not as undisturbed" for name in expected if found.get(name) != expected[name]]
    faults += [f"{name}: not there undisturbed" for name in found if name not in expected]
    faults += [
        f"{path}: left"
        for pattern in LEFTOVERS
        for path in checkout.results_dir.glob(pattern)
        if path.name != ".vlgraft.lock"
    ]
    time.sleep(2)
    faults += [
        f"process {process.pid}: {' '.join(process.cmdline())[:120]} is left" for process in checkout.processes()
    ]
    checkout.start("-n", log_name="again.log").wait()
    if b"Nothing to be done" not in (checkout.directory / "again.log").read_bytes()[-4000:]:
        faults.append("the same command again has something to do")
    return faults


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--num-kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args(arguments)
    directory = Path(tempfile.mkdtemp(prefix="kills-"))
    checkout = short_checkout(directory / "vlgraft")
    print(f"undisturbed, in {checkout.directory}", flush=True)
    started_at = time.monotonic()
    if status := checkout.start().wait():
        raise SystemExit(f"the undisturbed run ended with status {status}; see {checkout.directory / 'snakemake.log'}")
    whole_s, expected = time.monotonic() - started_at, sums_of(checkout.results_dir, COMPARED)
    print(f"{len(expected)} files, {whole_s:.0f} s", flush=True)
    choice, num_kills, num_faulty, number = random.Random(parsed.seed), 0, 0, 0
    while num_kills < parsed.num_kills:
        number += 1
        checkout.remove_results()
        killed = disturbed_round(checkout, choice, whole_s)
        num_kills += len(killed)
        faults = faults_of(checkout, expected)
        num_faulty += bool(faults)
        print(
            f"round {number}: {'; '.join(killed) or 'nothing killed'}: {'; '.join(faults) or 'as undisturbed'}",
            flush=True,
        )
        if faults:
            shutil.copytree(checkout.directory, directory / f"round{number}", symlinks=True)
    print(json.dumps(dict(checkout.names_killed.most_common()), indent=1))
    print(f"{num_kills} kills in {number} rounds, {num_faulty} rounds not as undisturbed")
    if not num_faulty:
        shutil.rmtree(directory)
    return 1 if num_faulty else 0


if __name__ == "__main__":
    sys.exit(main())
