"""Where the records of a model come from: `<model>.json` beside its records, and those of a whole table in one file."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.files import sha256_of_file
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
    records_sha256: str
    num_asked_before: int
    startup_s: float
    wall_time_s: float
    questions_per_s: float


@dataclass(frozen=True)
class TableProvenance:
    """Of all models of a table, and of its files."""

    models: dict[str, Provenance]
    scores_sha256: str
    comparison_sha256: str


def write_provenance(path: Path, provenance: Provenance) -> None:
    write_sealed(path, asdict(provenance))


def read_provenance(path: Path) -> Provenance:
    """Of one model, as it was written."""
    return read_sealed(Provenance, path)


def check_not_exchanged(provenances: Mapping[str, Provenance], paths: Mapping[str, Path]) -> None:
    """Raises UserError where the file of one model is about another one of the table."""
    for model, provenance in provenances.items():
        if provenance.model != model and provenance.model in provenances:
            raise UserError(
                f"{paths[model]}: about {provenance.model}; expected {model}: files were exchanged; evaluate this model again"
            )


def write_table_provenance(
    path: Path, provenances: Mapping[str, Provenance], scores_path: Path, comparison_path: Path
) -> None:
    sums = map(sha256_of_file, (scores_path, comparison_path))
    write_sealed(path, asdict(TableProvenance(dict(provenances), *sums)))


def read_table_provenance(path: Path, models: Sequence[str], scores_path: Path) -> dict[str, Provenance]:
    """The provenance of each of these models; raises UserError when the file lacks one, or a table was edited since."""
    table = read_sealed(TableProvenance, path)
    for model in models:
        if model not in table.models:
            raise UserError(f"{path}: nothing about {model} found, though its records were given; make the table again")
    _check_unedited(scores_path, table.scores_sha256, path, "make the table again")
    comparison_path = scores_path.with_suffix(".comparison.csv")
    if comparison_path.exists():
        _check_unedited(comparison_path, table.comparison_sha256, path, "make the table again")
    return {model: table.models[model] for model in models}


def check_records_unedited(records_paths: Mapping[str, Path], provenances: Mapping[str, Provenance]) -> None:
    """Raises UserError where the records of a model are not those that its evaluation wrote."""
    for model, path in records_paths.items():
        _check_unedited(path, provenances[model].records_sha256, path.with_suffix(".json"), "evaluate this model again")


def _check_unedited(path: Path, expected: str, expected_by: Path, remedy: str) -> None:
    if (found := sha256_of_file(path)) != expected:
        raise UserError(
            f"{path}: sha256 {found} found, {expected} expected by {expected_by}: it was edited since; bring the file back as "
            f"it was written, or {remedy}"
        )


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
