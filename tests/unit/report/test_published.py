"""Published scores stand on the page with their source, for the benchmark that they are of."""

from pathlib import Path

import yaml

from helpers.report_inputs import build
from scripts.questions.catalogue import read_catalogue
from scripts.report.published import PUBLISHED_PATH, published_scores


def test_each_published_score_has_a_source_and_is_a_share() -> None:
    for benchmark in yaml.safe_load(PUBLISHED_PATH.read_text()):
        scores = published_scores(benchmark)
        assert scores
        assert all(0 < score.accuracy < 1 and score.source and score.harness for score in scores)


def test_published_scores_are_filed_under_names_that_a_configuration_can_ask_for() -> None:
    assert yaml.safe_load(PUBLISHED_PATH.read_text()).keys() <= read_catalogue().keys()


def test_a_benchmark_of_ones_own_has_none() -> None:
    assert published_scores("digits") == []


def test_the_page_shows_them_for_the_benchmark_that_they_are_of(tmp_path: Path) -> None:
    assert "as published elsewhere" not in build(tmp_path / "digits").page()
    page = build(tmp_path / "mmmu", benchmarks=["mmmu"]).page()
    assert "mmmu as published elsewhere" in page and "arXiv:2502.13923" in page
