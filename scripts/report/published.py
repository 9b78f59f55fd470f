"""Scores that others have published, shown beside ours with their source."""

from dataclasses import dataclass

import yaml

from scripts.common.root import ROOT

PUBLISHED_PATH = ROOT / "config" / "published_scores.yaml"


@dataclass(frozen=True)
class PublishedScore:
    """One published accuracy in 0..1."""

    model: str
    split: str
    accuracy: float
    harness: str
    source: str


def published_scores(benchmark: str) -> list[PublishedScore]:
    """Those of a benchmark by its name in config/benchmarks.yaml; none for one of the user's own."""
    published = yaml.safe_load(PUBLISHED_PATH.read_text(encoding="utf-8"))
    return [PublishedScore(**score) for score in published.get(benchmark, [])]
