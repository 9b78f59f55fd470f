#!/usr/bin/env python3
"""Puts deliberate faults into copies of the tree, one at a time, and sees whether the tests notice: `make mutants`.

A test that passes whatever the code does proves nothing. Beside this file, by subject, lie faults (mutants): a text of the code,
what is put in its place, and the tests that must fail then. A mutant counts as noticed where one of its tests fails. The run
fails where one is not noticed, where its text is not found exactly once (the code has changed: correct the list), and where its
tests fail without it. The working tree is never touched.

By hand, from the repository root:
  .venv/bin/python tests/mutants/run_mutants.py                       # all of them
  .venv/bin/python tests/mutants/run_mutants.py --only train          # a subject, or a part of a name
"""

import argparse
import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
LISTS_DIR = Path(__file__).resolve().parent
SERVER = LISTS_DIR / "pytest_server.py"

ENVIRONMENTS = (".venv", ".venvs")
# Tests that need torch and transformers; the others run in the workflow's own environment.
TRAIN_TESTS = ("tests/model/", "tests/serving/")
KEYS = {"name", "file", "find", "put", "tests", "may_hang"}
TIME_LIMIT_S = 120.0
BASELINE_LIMIT_S = 900.0
NUM_LINES_SHOWN = 15
# pytest's exit status where tests ran and one of them failed; any other but 0 means that they could not be run.
TESTS_FAILED = 1


class ListError(Exception):
    """A list that cannot be read as one of mutants."""


@dataclass(frozen=True)
class Mutant:
    """A fault: `find`, which stands once in `file`, becomes `put`; one of `tests` must fail then, or hang if it `may_hang`."""

    subject: str
    name: str
    file: str
    find: str
    put: str
    tests: tuple[str, ...]
    may_hang: bool

    @property
    def title(self) -> str:
        return f"{self.subject}: {self.name}"


@dataclass(frozen=True)
class Outcome:
    """How pytest ended: its exit status, or None where the time limit ended it, and the end of what it printed."""

    status: int | None
    output: str


@dataclass(frozen=True)
class Verdict:
    """Whether a mutant was noticed, in words, and what was printed where it was not."""

    mutant: Mutant
    is_noticed: bool
    words: str
    output: str


def mutant_of(subject: str, entry: Any) -> Mutant:
    """One entry of a list; raises ListError where it is none."""
    if not isinstance(entry, dict) or not entry.keys() <= KEYS or not entry.keys() >= KEYS - {"may_hang"}:
        raise ListError(f"{subject}.yaml: {entry!r:.200}: expected name, file, find, put, tests, and perhaps may_hang")
    name, file, find, put = (entry[key] for key in ("name", "file", "find", "put"))
    if not all(isinstance(text, str) for text in (name, file, find, put)) or not find or not entry["tests"]:
        raise ListError(f"{subject}.yaml: {name!r}: expected texts, a text to find and at least one test")
    if find == put:
        raise ListError(f"{subject}.yaml: {name!r}: changes nothing")
    return Mutant(subject, name, file, find, put, tuple(entry["tests"]), bool(entry.get("may_hang", False)))


def read_mutants(lists_dir: Path) -> list[Mutant]:
    """All mutants of all lists; raises ListError where two have one name."""
    mutants = [
        mutant_of(path.stem, entry)
        for path in sorted(lists_dir.glob("*.yaml"))
        for entry in yaml.safe_load(path.read_text(encoding="utf-8")) or []
    ]
    titles = [mutant.title for mutant in mutants]
    if doubled := sorted({title for title in titles if titles.count(title) > 1}):
        raise ListError(f"{doubled[0]}: there twice; give one of them another name")
    return mutants


def selected(mutants: Sequence[Mutant], only: Sequence[str]) -> list[Mutant]:
    """Those of a subject, or with a part of a name; all where nothing was asked for."""
    subjects = {mutant.subject for mutant in mutants}

    def is_meant(mutant: Mutant, part: str) -> bool:
        return mutant.subject == part if part in subjects else part in mutant.name

    return [mutant for mutant in mutants if not only or any(is_meant(mutant, part) for part in only)]


def misfit(mutant: Mutant, root: Path) -> str | None:
    """Why a mutant does not apply to a tree, or None."""
    path = root / mutant.file
    if not path.is_file():
        return f"{mutant.file} not found"
    num_found = path.read_text(encoding="utf-8").count(mutant.find)
    return None if num_found == 1 else f"its text stands {num_found} times in {mutant.file}, once expected"


def python_of(test: str) -> str:
    """The interpreter that a test needs, relative to the root."""
    return ".venvs/train/bin/python" if test.startswith(TRAIN_TESTS) else ".venv/bin/python"


def by_python(tests: Iterable[str]) -> dict[str, list[str]]:
    """The tests by their interpreter, each once."""
    groups: dict[str, list[str]] = {}
    for test in dict.fromkeys(tests):
        groups.setdefault(python_of(test), []).append(test)
    return groups


def copy_tree(root: Path, target: Path) -> None:
    """What git tracks or would track, in a repository of its own (tests copy it as we do), and links to the environments."""
    subprocess.run(["git", "init", "--quiet", str(target)], check=True)
    (target / ".git/info/exclude").write_text("".join(f"{name}\n" for name in ENVIRONMENTS), encoding="utf-8")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    for relative in filter(None, listed.split("\0")):
        source = root / relative
        if source.is_file():  # a tracked file that was deleted stays listed until it is committed
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / relative)
    for name in ENVIRONMENTS:
        if (root / name).exists():
            (target / name).symlink_to(root / name, target_is_directory=True)


class Tree:
    """A copy of the tree, in which one mutant at a time is put in and taken out again, and what runs its tests there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.servers: dict[str, subprocess.Popen[str]] = {}

    def run_tests(self, python: str, tests: Sequence[str], limit_s: float, *options: str) -> Outcome:
        """Runs tests; at the time limit all that they started is killed."""
        if python not in self.servers:
            # One thread: as many trees as there are processors are at work.
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            self.servers[python] = subprocess.Popen(
                [python, SERVER], cwd=self.directory, env=environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        server, output_path = self.servers[python], self.directory.with_suffix(".output")
        arguments = ["-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", *options, *tests]
        assert server.stdin and server.stdout
        server.stdin.write(json.dumps({"arguments": arguments, "output": str(output_path), "limit_s": limit_s}) + "\n")
        server.stdin.flush()
        status = json.loads(server.stdout.readline())["status"]
        lines = output_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return Outcome(status, "\n".join(lines[-NUM_LINES_SHOWN:]))

    def close(self) -> None:
        """Ends what runs tests."""
        for server in self.servers.values():
            assert server.stdin
            server.stdin.close()
            server.wait()

    def write(self, path: Path, text: str) -> None:
        """With a time of its own: Python knows a compiled file by its source's size and whole second of change."""
        modified_s = int(path.stat().st_mtime)
        path.write_text(text, encoding="utf-8")
        os.utime(path, (modified_s + 1, modified_s + 1))

    def verdict(self, mutant: Mutant) -> Verdict:
        """Runs the tests of a mutant until one fails."""
        path = self.directory / mutant.file
        original = path.read_text(encoding="utf-8")
        started_s = time.monotonic()
        self.write(path, original.replace(mutant.find, mutant.put))
        try:
            outcomes = []
            for python, tests in by_python(mutant.tests).items():
                outcomes.append(self.run_tests(python, tests, TIME_LIMIT_S, "-x"))
                if outcomes[-1].status == TESTS_FAILED:
                    break
        finally:
            self.write(path, original)
        return judged(mutant, outcomes, time.monotonic() - started_s)


def judged(mutant: Mutant, outcomes: Sequence[Outcome], wall_time_s: float) -> Verdict:
    """The verdict on a mutant from how its tests ended."""
    statuses = [outcome.status for outcome in outcomes]
    output = "\n".join(outcome.output for outcome in outcomes)
    if TESTS_FAILED in statuses:
        return Verdict(mutant, True, f"noticed ({wall_time_s:.1f} s)", "")
    if None in statuses:
        words = "noticed by time limit" if mutant.may_hang else f"NOT NOTICED: still running after {TIME_LIMIT_S:.0f} s"
        return Verdict(mutant, mutant.may_hang, words, output)
    if failures := [status for status in statuses if status]:
        words = f"NOT NOTICED: its tests could not be run (pytest's status {failures[0]})"
        return Verdict(mutant, False, words, output)
    return Verdict(mutant, False, "NOT NOTICED: its tests pass", output)


def failing_selections(
    trees: "queue.Queue[Tree]", mutants: Sequence[Mutant], num_jobs: int
) -> dict[tuple[str, ...], str]:
    """The distinct selections of tests that fail without any mutant, with what they print.

    The tests of all selections are run together; only where that fails, file by file, and then selection by selection.
    """

    def outcome_of(python: str, tests: Sequence[str]) -> Outcome:
        tree = trees.get()
        try:
            return tree.run_tests(python, tests, BASELINE_LIMIT_S)
        finally:
            trees.put(tree)

    selections = sorted({mutant.tests for mutant in mutants})
    chunks: list[tuple[str, list[str]]] = []
    for python, tests in by_python(test for selection in selections for test in selection).items():
        files = sorted({test.partition("::")[0] for test in tests})
        for number in range(num_jobs):
            if chunk := [test for test in tests if test.partition("::")[0] in files[number::num_jobs]]:
                chunks.append((python, chunk))
    with ThreadPoolExecutor(num_jobs) as pool:
        outcomes = list(pool.map(lambda chunk: outcome_of(*chunk), chunks))
        of_files: dict[tuple[str, str], list[str]] = {}
        for (python, tests), outcome in zip(chunks, outcomes, strict=True):
            for test in tests if outcome.status else ():
                of_files.setdefault((python, test.partition("::")[0]), []).append(test)
        by_file = list(pool.map(lambda item: outcome_of(item[0][0], item[1]), of_files.items()))
        suspects = {
            test for tests, outcome in zip(of_files.values(), by_file, strict=True) if outcome.status for test in tests
        }
        alone = [selection for selection in selections if suspects & set(selection)]
        found = pool.map(lambda selection: [outcome_of(*group) for group in by_python(selection).items()], alone)
        return {
            selection: "\n".join(outcome.output for outcome in of_selection if outcome.status != 0)
            for selection, of_selection in zip(alone, found, strict=True)
            if any(outcome.status != 0 for outcome in of_selection)
        }


def verdicts(trees: "queue.Queue[Tree]", mutants: Sequence[Mutant], num_jobs: int) -> Iterable[Verdict]:
    """The verdict on each mutant, as they come."""

    def verdict_of(mutant: Mutant) -> Verdict:
        tree = trees.get()
        try:
            return tree.verdict(mutant)
        finally:
            trees.put(tree)

    # Those that need torch last so long that none of them may be the last one.
    ordered = sorted(mutants, key=lambda mutant: not any(test.startswith(TRAIN_TESTS) for test in mutant.tests))
    with ThreadPoolExecutor(num_jobs) as pool:
        yield from pool.map(verdict_of, ordered)


def run(root: Path, mutants: Sequence[Mutant], num_jobs: int) -> int:
    """Everything, a line for each mutant; the exit status."""
    started_s = time.monotonic()
    for mutant in mutants:
        if reason := misfit(mutant, root):
            print(f"{mutant.title}: DOES NOT APPLY: {reason}")
    applying = [mutant for mutant in mutants if misfit(mutant, root) is None]
    with tempfile.TemporaryDirectory(prefix="vlgraft-mutants-") as scratch, contextlib.ExitStack() as ending:
        trees: queue.Queue[Tree] = queue.Queue()
        for number in range(num_jobs):
            copy_tree(root, Path(scratch) / str(number))
            trees.put(Tree(Path(scratch) / str(number)))
            ending.callback(trees.queue[-1].close)
        print(f"{len(applying)} mutants; first their tests without any", flush=True)
        failing = failing_selections(trees, applying, num_jobs)
        for selection, output in failing.items():
            print(f"{' '.join(selection)}: FAILS WITHOUT A MUTANT\n{output}", flush=True)
        usable = [mutant for mutant in applying if mutant.tests not in failing]
        num_noticed = 0
        for verdict in verdicts(trees, usable, num_jobs):
            num_noticed += verdict.is_noticed
            print(f"{verdict.mutant.title}: {verdict.words}", flush=True)
            if not verdict.is_noticed:
                print(verdict.output, flush=True)
    print(f"{num_noticed} / {len(mutants)} noticed, {time.monotonic() - started_s:.0f} s")
    return int(num_noticed != len(mutants) or not mutants)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", default=[], metavar="PART", help="a subject, or a part of a name")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="mutants at a time")
    arguments = parser.parse_args()
    try:
        mutants = selected(read_mutants(LISTS_DIR), arguments.only)
    except (ListError, yaml.YAMLError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return run(ROOT, mutants, arguments.jobs)


if __name__ == "__main__":
    sys.exit(main())
