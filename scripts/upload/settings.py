"""What a model card needs of the configuration: where the run's files are, and what its benchmarks are called."""

from dataclasses import dataclass

from scripts.donors.settings import DonorSource


@dataclass(frozen=True)
class BenchmarkNames:
    """Of the section `evaluate`."""

    backend: str
    benchmarks: list[str | dict[str, str]]


@dataclass(frozen=True)
class CardSettings:
    """Part of a whole configuration, under its keys."""

    results: str
    seed: int
    donors: dict[str, DonorSource]
    evaluate: BenchmarkNames
