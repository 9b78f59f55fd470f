"""Which questions the gallery shows, and how their pictures get into the page."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from helpers.report_inputs import png
from scripts.common.errors import UserError
from scripts.evaluate.records import Record
from scripts.evaluate.scores import Benchmark
from scripts.report.gallery import Question, choose, embed, embed_all, questions_of


def question(index: int, group: str, subject: str | None = None) -> Question:
    return Question(str(index), group, subject, "Which?", {}, "A", [])


def record(index: int, correct: bool) -> Record:
    extracted = "A" if correct else "B"
    judged = (float(correct), correct, "accuracy", "answered", 0)
    return Record(str(index), "test", None, None, "Which?", {"A": "a"}, "A", extracted, extracted, *judged, "0")


def noise(width_px: int, height_px: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width_px, height_px), 90).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def test_groups_follow_the_stages_and_neither_parent_nor_control() -> None:
    right = {"parent": [0, 0, 0, 1], "stage1": [0, 1, 1, 0], "stage2": [1, 0, 1, 0], "stage2-shuffled": [0, 0, 0, 0]}
    records = {model: [record(i, bool(was)) for i, was in enumerate(row)] for model, row in right.items()}
    benchmark = Benchmark("digits", Path("t"), Path("c"), [], records, {})
    found = questions_of(benchmark)
    assert [one.group for one in found] == ["learned", "wrong", "right", "wrong"]
    assert [model for model, _ in found[0].answers] == ["parent", "stage1", "stage2"]


def test_the_groups_are_shown_evenly_with_their_true_sizes() -> None:
    questions = [question(i, "right") for i in range(90)] + [question(i, "wrong") for i in range(90, 99)]
    questions.append(question(99, "learned"))
    groups = choose(questions, 7, "digits")
    assert [(len(group.questions), group.num_questions) for group in groups] == [(1, 1), (3, 9), (3, 90)]


def test_fewer_questions_than_asked_for_are_all_shown() -> None:
    groups = choose([question(i, "right") for i in range(3)], 24, "digits")
    assert [len(group.questions) for group in groups] == [3]
    assert choose([question(0, "right")], 0, "digits") == []


def test_subjects_take_turns() -> None:
    questions = [question(i, "right", "common") for i in range(95)] + [question(95, "right", "rare")]
    (group,) = choose(questions, 2, "digits")
    assert {one.subject for one in group.questions} == {"common", "rare"}


def test_the_choice_depends_on_indices_alone_and_is_not_the_first_rows() -> None:
    questions = [question(i, "right") for i in range(100)]
    chosen = [one.index for group in choose(questions, 10, "digits") for one in group.questions]
    again = [one.index for group in choose(questions[::-1], 10, "digits") for one in group.questions]
    assert chosen == again
    assert chosen != [str(index) for index in range(10)]


def test_bytes_that_are_no_picture_are_refused_with_their_row() -> None:
    with pytest.raises(UserError, match="row 7: its picture cannot be read"):
        embed(b"<svg onload='alert(1)'/>" * 9, "t.tsv: row 7", 480)
    with pytest.raises(UserError, match="row 7: its picture cannot be read"):
        embed(noise(64, 64)[:900], "t.tsv: row 7", 480)


def test_a_small_picture_keeps_its_pixels_and_a_large_one_is_made_smaller() -> None:
    small = embed(png(3), "t", 480)
    assert (small.width, small.height, small.is_small) == (56, 56, True)
    decoded = Image.open(io.BytesIO(base64.b64decode(small.data_url.partition(",")[2])))
    assert decoded.tobytes() == Image.open(io.BytesIO(png(3))).tobytes()
    large = embed(noise(2000, 1000), "t", 480)
    assert (large.width, large.height, large.is_small) == (480, 240, False)
    assert large.data_url.startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pictures_of_every_mode_are_shown(mode: str) -> None:
    for width_px in (40, 900):
        assert embed(noise(width_px, 30, mode), "t", 480).data_url.startswith("data:image/")


def test_what_is_transparent_becomes_white() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(buffer, "PNG")
    shown = Image.open(io.BytesIO(base64.b64decode(embed(buffer.getvalue(), "t", 480).data_url.partition(",")[2])))
    assert shown.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_nothing_but_pixels_gets_into_the_page() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 300)).save(buffer, "JPEG", comment=b"<script>alert(1)</script>")
    assert b"<script>" not in base64.b64decode(embed(buffer.getvalue(), "t", 480).data_url.partition(",")[2])


def test_many_large_pictures_are_shrunk_until_they_fit() -> None:
    encoded = {str(i): [noise(600, 600)] for i in range(3)}
    roomy, tight = (embed_all(encoded, Path("t"), budget) for budget in (10_000_000, 60_000))
    assert roomy["0"][0].width == 480
    assert sum(len(picture.data_url) for parts in tight.values() for picture in parts) <= 60_000
