"""Published scores stand on the page with their source, for the benchmark that they are of."""

from pathlib import Path

import make_report
import yaml
from report_inputs import build

from report.page import render
from report.published import PUBLISHED_PATH, published_scores


def config_of(dataset: str) -> dict[str, object]:
    return {"evaluate": {"benchmarks": {"digits": {"dataset": dataset}}}}


def test_each_published_score_has_a_source_and_is_a_share() -> None:
    for dataset in yaml.safe_load(PUBLISHED_PATH.read_text()):
        scores = published_scores(config_of(dataset), "digits")
        assert scores
        assert all(0 < score.accuracy < 1 and score.source and score.harness for score in scores)


def test_a_benchmark_of_ones_own_has_none() -> None:
    assert published_scores(config_of("Mine"), "digits") == []
    assert published_scores({}, "digits") == []


def test_the_page_shows_them_for_the_benchmark_that_they_are_of(tmp_path: Path) -> None:
    inputs = build(tmp_path)
    plain = render(make_report.gather(make_report.parse_arguments(inputs.arguments())))
    assert "as published elsewhere" not in plain
    config = inputs.read_json("config.json")
    config.setdefault("evaluate", {}).setdefault("benchmarks", {})["digits"] = {"dataset": "MMMU_DEV_VAL"}
    inputs.write_json("config.json", config)
    page = render(make_report.gather(make_report.parse_arguments(inputs.arguments())))
    assert "digits as published elsewhere" in page and "arXiv:2502.13923" in page
