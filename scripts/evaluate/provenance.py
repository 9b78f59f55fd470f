"""Where the records of a model come from: `<model>.json` beside its records, and those of a whole table in one file."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.reading import read_sealed, write_sealed

# What must agree for two models to stand in one table.
SHARED_FIELDS = ("harness", "benchmark", "benchmark_md5", "settings", "serve", "seeds", "versions")


@dataclass(frozen=True)
class ServeIdentity:
    """Of `evaluate.serve`: what an answer depends on. The rest decides how fast it comes."""

    backend: str
    environment: Mapping[str, Any]
    flags: Mapping[str, Any]


@dataclass(frozen=True)
class Identity:
    """Everything that decides the answers but their seed."""

    checkpoint_sha256: str
    harness: str
    benchmark: str
    benchmark_md5: str
    control: str
    shuffled_by_seed: int | None  # the seed decides the shuffled pictures; None: they are not shuffled
    serve: ServeIdentity
    settings: Mapping[str, Any]  # of the harness
    versions: Mapping[str, str]

    def key(self) -> str:
        """A short name, by which answers are kept: another checkpoint or setting has another one."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Timing:
    """Seconds until the first question and of asking, and how many answers came in that time."""

    startup_s: float
    asking_s: float
    num_asked: int

    def __add__(self, other: "Timing") -> "Timing":
        return Timing(
            self.startup_s + other.startup_s, self.asking_s + other.asking_s, self.num_asked + other.num_asked
        )


@dataclass(frozen=True)
class Times:
    """The times of this run, for the questions that it asked; an earlier, interrupted one had asked the others."""

    num_asked_before: int
    startup_s: float
    wall_time_s: float
    questions_per_s: float

    @classmethod
    def of(cls, timing: Timing, num_answers: int) -> "Times":
        return cls(
            num_asked_before=num_answers - timing.num_asked,
            startup_s=round(timing.startup_s, 1),
            wall_time_s=round(timing.startup_s + timing.asking_s, 1),
            questions_per_s=round(timing.num_asked / timing.asking_s, 3),
        )


@dataclass(frozen=True)
class Provenance:
    """Where a row of the table comes from: its name and checkpoint, then Identity, then the asking, then Times."""

    model: str
    model_dir: str  # relative to the working directory
    checkpoint_sha256: str
    harness: str
    benchmark: str
    benchmark_md5: str
    control: str
    shuffled_by_seed: int | None
    serve: ServeIdentity
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    backend: str  # that served
    seeds: list[int]
    num_questions: int
    num_asked_before: int
    startup_s: float
    wall_time_s: float
    questions_per_s: float


@dataclass(frozen=True)
class TableProvenance:
    """Of all models of a table."""

    models: dict[str, Provenance]


def write_provenance(path: Path, provenance: Provenance) -> None:
    write_sealed(path, asdict(provenance))


def read_provenance(path: Path) -> Provenance:
    """Of one model, as it was written."""
    return read_sealed(Provenance, path)


def write_table_provenance(path: Path, provenances: Mapping[str, Provenance]) -> None:
    write_sealed(path, asdict(TableProvenance(dict(provenances))))


def read_table_provenance(path: Path, models: Sequence[str]) -> dict[str, Provenance]:
    """The provenance of each of these models; raises UserError when the file lacks one."""
    found = read_sealed(TableProvenance, path).models
    for model in models:
        if model not in found:
            raise UserError(f"{path}: nothing about {model} found, though its records were given; make the table again")
    return {model: found[model] for model in models}


def check_same_way(provenances: Mapping[str, Provenance], paths: Mapping[str, Path]) -> None:
    """Raises UserError when two models were evaluated in different ways."""
    first, *others = provenances
    for field in SHARED_FIELDS:
        for model in others:
            found, expected = (asdict(provenances[each])[field] for each in (model, first))
            if found != expected:
                raise UserError(
                    f"{paths[model]}: {field} is {json.dumps(found)}, but {paths[first]} has {json.dumps(expected)}; "
                    "such scores do not compare: evaluate both the same way"
                )
