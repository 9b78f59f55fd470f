"""The geometry of the loss curves."""

import re
from xml.etree import ElementTree

import pytest

from helpers.report_inputs import LAYOUT, build
from scripts.report import curves
from scripts.report.curves import draw, moving_mean, nice_ticks, sampled_losses, thin_out
from scripts.report.page import render_curve
from scripts.train.losses import LossPoint
from scripts.train.metrics import Metrics, read_metrics


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)]


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Metrics:
    inputs = build(tmp_path_factory.mktemp("report"), num_questions=4, num_steps=400)
    return read_metrics("stage2", inputs.path(LAYOUT.metrics("stage2")))


def with_losses(metrics: Metrics, *losses: float) -> Metrics:
    logged = [LossPoint(step, loss, 0.001 * step, None) for step, loss in enumerate(losses, start=1)]
    return Metrics(**{**vars(metrics), "losses": logged, "num_steps": max(len(losses), 1), "resumes": []})


def test_ticks_are_round_and_do_not_pass_the_top() -> None:
    assert nice_ticks(1.69, 4) == [0, 0.5, 1, 1.5]
    assert nice_ticks(0.27, 4) == [0, 0.1, 0.2]
    assert nice_ticks(0, 4) == [0]
    for top in (0.001, 0.3, 1, 7.9, 12345):
        ticks = nice_ticks(top, 4)
        assert 2 <= len(ticks) <= 6
        assert ticks[-1] <= top * 1.001


def test_thinning_keeps_the_spikes() -> None:
    many = [(float(x), 1.0) for x in range(10_000)]
    many[6543] = (6543.0, 99.0)
    thin = thin_out(many, 600)
    assert len(thin) <= 600
    assert (6543.0, 99.0) in thin
    assert thin == sorted(thin)


def test_the_moving_mean_keeps_the_ends_and_the_level() -> None:
    assert moving_mean([1.0, 2.0, 9.0, 2.0, 1.0], 3) == [1.0, 4.0, pytest.approx(13 / 3), 4.0, 1.0]
    assert moving_mean([5.0] * 30, 7) == [5.0] * 30


def test_a_curve_stays_inside_its_panel_and_ends_at_the_last_loss(metrics: Metrics) -> None:
    chart = draw(metrics)
    for x, y in points(chart.loss_path) + points(chart.smooth_path):
        assert curves.LEFT <= x <= curves.RIGHT
        assert curves.LOSS_TOP <= y <= curves.LOSS_BOTTOM
    for _, y in points(chart.rate_path):
        assert curves.RATE_TOP <= y <= curves.RATE_BOTTOM
    assert points(chart.loss_path)[-1] == (round(chart.last.position, 1), round(chart.last_y, 1))
    assert [tick.label for tick in chart.resumes] == ["200"]
    assert chart.resumes[0].position == pytest.approx((curves.LEFT + curves.RIGHT) / 2)


def test_the_lower_loss_is_drawn_lower(metrics: Metrics) -> None:
    (_, high), (_, low) = points(draw(with_losses(metrics, 2.0, 1.0)).loss_path)
    assert high < low  # y grows downwards


def test_a_loss_that_is_no_number_breaks_the_line_and_is_named(metrics: Metrics) -> None:
    chart = draw(with_losses(metrics, 2.0, 1.5, float("nan"), 1.0, 0.5))
    assert chart.loss_path.count("M") == 2
    assert "nan" not in chart.loss_path
    assert chart.steps_not_finite == [3]


def test_a_stage_without_logged_losses_or_with_zeros_alone_can_be_drawn(metrics: Metrics) -> None:
    assert draw(with_losses(metrics)).loss_path == ""
    assert draw(with_losses(metrics, float("nan"))).loss_path == ""
    assert points(draw(with_losses(metrics, 0.0, 0.0)).loss_path)[-1][1] == curves.LOSS_BOTTOM


def test_a_long_training_does_not_make_a_heavy_page(metrics: Metrics) -> None:
    chart = draw(with_losses(metrics, *(2.0 / (step + 1) for step in range(50_000))))
    assert len(chart.loss_path) + len(chart.smooth_path) + len(chart.rate_path) < 30_000


def test_few_points_are_not_smoothed(metrics: Metrics) -> None:
    assert draw(with_losses(metrics, 3.0, 2.0, 1.0)).smooth_path == ""


def test_the_curve_in_numbers_has_the_first_and_the_last_step(metrics: Metrics) -> None:
    rows = sampled_losses(metrics.losses, 12)
    assert len(rows) == 12
    assert (rows[0], rows[-1]) == (metrics.losses[0], metrics.losses[-1])
    assert sampled_losses(metrics.losses[:3], 12) == metrics.losses[:3]


def test_a_curve_is_also_a_picture_of_its_own_with_its_colours(metrics: Metrics) -> None:
    text = render_curve(metrics)
    picture = ElementTree.fromstring(text)
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    assert draw(metrics).loss_path in text
    names = set(re.findall(r"var\((--[\w-]+)\)", text))
    assert names and all(f"{name}: " in text for name in names)
