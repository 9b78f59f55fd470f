"""The benchmarks that a configuration asks for: names of config/benchmarks.yaml, or the user's own tables."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.common.errors import UserError
from scripts.common.input_files import read_input_text
from scripts.common.json_text import json_value
from scripts.common.root import ROOT

CATALOGUE_PATH = ROOT / "config" / "benchmarks.yaml"
FETCHED_DIR = Path("resources/benchmarks")

# A table that is asked as it is, and a list that is made into one (scripts/questions/tabulate_benchmark.py).
OWN_SUFFIXES = (".tsv", ".jsonl")


@dataclass(frozen=True)
class ListedBenchmark:
    """One entry of `evaluate.benchmarks`; paths are relative to the working directory."""

    name: str  # of the table
    dataset: str  # what EvalScope's backend calls it; of the user's own, the name of the table
    own_path: Path | None  # the user's file; None: fetched. For a known name: a snapshot of its dataset, a directory


def read_catalogue() -> dict[str, dict[str, str]]:
    """Known name → the backends' names of it."""
    return dict(yaml.safe_load(CATALOGUE_PATH.read_text(encoding="utf-8")))


def listed_benchmarks(evaluate: Mapping[str, Any]) -> dict[str, ListedBenchmark]:
    """The entries of a section `evaluate`, by name. Raises UserError for one that its backend does not have."""
    catalogue = read_catalogue()
    listed = {}
    for entry in evaluate["benchmarks"]:
        pairs = list(entry.items()) if isinstance(entry, Mapping) else [(entry, None)]
        if len(pairs) != 1:
            raise UserError(f"evaluate.benchmarks: {entry!r} found; expected a name, or one name with its file")
        ((name, path),) = pairs
        dataset = catalogue[name].get(evaluate["backend"]) if name in catalogue else name
        if dataset is None:
            raise UserError(
                f"evaluate.benchmarks: {name} found, which {evaluate['backend']} does not have; see evaluate.backend"
            )
        listed[name] = ListedBenchmark(name, dataset, None if path is None else Path(path))
    return listed


def pictures_named_in(list_path: Path) -> Iterator[Path]:
    """The pictures that the user's list names; broken lines are passed over here, and refused by tabulate_benchmark.py."""
    with contextlib.suppress(UserError):
        for line in read_input_text(list_path, "a list of questions", "check the path").split("\n"):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                yield from (list_path.parent / path for path in json_value(line)["images"])


# By these in a name VLMEvalKit takes a table for another kind: one asked in turned options, or one of open questions.
CIRCULAR_MARKS = ("mmbench", "ccbench", "circular", "mmcr")
OPEN_MARK = "openended"


def benchmark_findings(config: Mapping[str, Any]) -> Iterator[str]:
    """Unknown names, names twice, and benchmarks that the backend cannot score."""
    catalogue, evaluate = read_catalogue(), config["evaluate"]
    seen = set()
    for number, entry in enumerate(evaluate["benchmarks"]):
        where = f"evaluate.benchmarks[{number}]"
        ((name, path),) = entry.items() if isinstance(entry, Mapping) else ((entry, None),)
        if name in seen:
            yield f"{where}: {name} is there twice; give one of them another name"
        seen.add(name)
        if name not in catalogue:
            if path is None:
                known = ", ".join(catalogue)
                yield f"{where}: {name} is unknown; expected one of {known}, or a file of your own: {{{name}: PATH.tsv}}"
            elif evaluate["backend"] == "vlmevalkit" and (
                marks := [mark for mark in (*CIRCULAR_MARKS, OPEN_MARK) if mark in name.lower()]
            ):
                yield (
                    f"{where}: {name} holds {marks[0]!r}, by which VLMEvalKit would ask or score it as another kind of "
                    "benchmark; give your own another name"
                )
            elif Path(path).suffix not in OWN_SUFFIXES:
                yield f"{where}: {path} found; expected a table, {' or '.join(OWN_SUFFIXES)}"
        elif evaluate["backend"] not in catalogue[name]:
            yield (
                f"{where}: {name} contradicts evaluate.backend: vlmevalkit: {catalogue[name]['no_vlmevalkit']}; write "
                "backend: native, or remove it"
            )
        elif path is not None and evaluate["backend"] != "native":
            yield (
                f"{where}: {name} is a known benchmark, whose file is {FETCHED_DIR}/{catalogue[name]['vlmevalkit']}.tsv; put it "
                f"there and write {name}, or give your own another name"
            )
        elif path is not None and Path(path).suffix in OWN_SUFFIXES:
            yield f"{where}: {name} is a known benchmark; expected the directory of its dataset, or another name for your own"
