"""The page as a whole: self-contained, escaped, deterministic, and complete."""

import html
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from helpers.report_inputs import COMMIT, FIDELITY, LAYOUT, SKILLS, ReportInputs, build, make_questions

VOID = {"meta", "link", "img", "br", "line", "circle", "path", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on a tag that is closed in the wrong place."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"[\s\u2060]+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> ReportInputs:
    return build(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(inputs: ReportInputs) -> str:
    return inputs.page()


def test_nothing_is_loaded_from_outside(page: str) -> None:
    for tag, attributes in Page(page).tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "action", "xlink:href", "data", "poster"):
                assert value is not None
                assert value.startswith(("data:image/png;base64,", "data:image/jpeg;base64,", "#"))
    assert "url(" not in page
    assert "@import" not in page
    policies = [a["content"] for tag, a in Page(page).tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_the_page_is_light_and_well_formed(page: str) -> None:
    assert len(page.encode()) < 200_000
    found = Page(page)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in found.tags:
        for name in ("aria-labelledby", "href"):
            if (value := attributes.get(name) or "").startswith("#") or name == "aria-labelledby":
                assert not value or value.removeprefix("#") in ids
    assert all(attributes.get("alt") for tag, attributes in found.tags if tag == "img")


def test_the_same_inputs_give_the_same_bytes_whatever_the_clock_and_the_folder(
    inputs: ReportInputs, page: str, tmp_path: Path
) -> None:
    again = build(tmp_path / "elsewhere")
    assert again.page() == page
    os.utime(again.path(LAYOUT.fidelity), (1800000000, 1800000000))
    assert "2027-01-15 08:00 UTC" in again.page()
    assert "2026-01-02 03:04 UTC" in page


def test_every_accuracy_of_the_table_is_on_the_page(inputs: ReportInputs, page: str) -> None:
    text = Page(page).text
    for model in SKILLS:
        records = inputs.read_records(model)
        share = sum(record["correct"] for record in records) / len(records)
        assert re.search(rf"{model} .*? {share * 100:.1f} %", text)


def test_the_control_stands_apart_and_is_not_in_the_gallery(page: str) -> None:
    control = page.index('<tbody role="rowgroup" class="controls">')
    assert page.index(">stage2-shuffled") > control
    assert "stage2-shuffled" not in page[page.index('<section id="gallery"') : page.index('<section id="provenance"')]


def test_the_gallery_shows_as_many_questions_as_asked_for(page: str) -> None:
    found = Page(page)
    assert sum(tag == "img" for tag, _ in found.tags) == 6
    assert page.count('<li class="card"') == 6


def test_right_and_wrong_are_told_by_words_and_signs_not_by_colour_alone(page: str) -> None:
    for verdict, sign in (("right", "✓"), ("wrong", "✗")):
        for cell in re.findall(rf'<li class="{verdict}">(.*?)</li>', page, flags=re.DOTALL):
            assert sign in cell
            assert f'<span class="hidden">{verdict}</span>' in cell


def test_provenance_names_hashes_commands_versions_and_configuration(inputs: ReportInputs, page: str) -> None:
    text = Page(page).text
    metrics = inputs.read_json(LAYOUT.metrics("stage1"))
    assert f"train stage1 1 min 42 s {metrics['checkpoint_sha256']}" in text
    assert "graft 12 min 34 s" in text
    assert "--system 'You are a helpful assistant.'" in text
    assert "num_gallery_pictures: 6" in text
    assert "serve.environment.MAX_PIXELS" in text
    assert "0123456789ab" in text
    for version in ("4.6.0", "5.19.0", "1.14.1"):
        assert version in text
    assert inputs.read_json(LAYOUT.donor_manifest("vl"))["files"][0]["sha256"] in text
    assert "ab" * 32 in text


def test_what_a_file_says_is_shown_and_never_obeyed(tmp_path: Path) -> None:
    inputs = build(tmp_path)
    hostile = '<script>alert("x")</script><img src=http://example.org/x onerror=alert(1)>\'"&amp;</style>'
    questions = make_questions(12, 0)
    for question in questions:
        question["question"] = hostile
        question["A"] = hostile
        question["category"] = hostile
    inputs.write_questions(questions, {"stage1": 0.5, "stage2": 0.9}, seed=0)
    records = inputs.read_records("stage2")
    for record in records:
        record |= {"prediction": hostile, "extracted": None, "correct": False, "score": 0.0, "status": "unparsed"}
    inputs.write_records("stage2", records)
    inputs.write_scores()
    for name, change in (
        (LAYOUT.metrics("stage1"), {"command": [hostile], "versions": {hostile: hostile}}),
        (LAYOUT.effective_config, {hostile: hostile}),
        (LAYOUT.fidelity, {"bit_equal": False, "text": hostile, "versions": {hostile: hostile}}),
    ):
        inputs.change_json(name, **change)
    text = inputs.page(title=hostile)
    found = Page(text)
    assert all(tag != "script" for tag, _ in found.tags)
    assert all((attributes.get("src") or "data:").startswith("data:") for _, attributes in found.tags)
    assert all(not name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert text.count("</style>") == 1
    assert "<script" not in text
    assert html.escape("<script>alert(") in text


def test_answers_that_are_cut_off_or_without_a_letter_are_quoted(tmp_path: Path) -> None:
    inputs = build(tmp_path, num_questions=6)
    records = inputs.read_records("stage2")
    for record, status in zip(records, ("unparsed", "truncated"), strict=False):
        prediction = f"It is hard to say: {status}."
        record |= {"prediction": prediction, "extracted": None, "correct": False, "score": 0.0, "status": status}
    inputs.write_records("stage2", records)
    inputs.write_scores()
    text = Page(inputs.page()).text
    assert "no letter" in text
    assert "cut off" in text
    assert "It is hard to say: truncated." in text


@pytest.mark.parametrize(
    ("fidelity", "expected", "unexpected"),
    [
        ({"bit_equal": True}, "nothing of the language model was lost", "Not bit-equal"),
        (
            {"bit_equal": False, "kl_mean_nats": 1.183, "top1_agreement": 0.451},
            "45.1 %",
            "nothing of the language model",
        ),
        (
            {"bit_equal": False, "dropped": {"num_tensors": 72, "num_parameters": 9216, "kinds": {}}},
            "tensors of the donor left out 72",
            "was lost",
        ),
    ],
)
def test_the_graft_is_called_faithful_only_when_it_is(
    tmp_path: Path, fidelity: dict[str, Any], expected: str, unexpected: str
) -> None:
    inputs = build(tmp_path, num_questions=6)
    inputs.write_json(LAYOUT.fidelity, FIDELITY | fidelity)
    text = Page(inputs.page()).text
    assert expected in text
    assert unexpected not in text


def test_a_run_with_a_parent_two_splits_and_no_control_has_a_page(tmp_path: Path) -> None:
    inputs = build(tmp_path)
    questions = make_questions(20, 0, "validation") + [
        {**question, "index": f"d{question['index']}"} for question in make_questions(10, 1, "dev")
    ]
    inputs.write_questions(questions, {"parent": 0.9, "graft": 0.3, "stage1": 0.6, "stage2": 0.8}, seed=0)
    text = Page(inputs.page()).text
    assert "split validation : 20 questions" in text.replace("validation:", "validation :")
    assert "split dev: 10 questions" in text
    assert "the vision donor itself" in text
    assert "No control with shuffled pictures or without any was run" in text


def test_memory_of_a_gpu_is_shown_where_one_was_used(tmp_path: Path) -> None:
    inputs = build(tmp_path)
    assert "Most memory of a GPU, GiB 61.5 61.5" in Page(inputs.page()).text
    for stage in ("stage1", "stage2"):
        inputs.change_json(LAYOUT.metrics(stage), peak_gpu_memory_gib=None)
    assert "Most memory of a GPU" not in Page(inputs.page()).text


def test_questions_without_options_or_subjects_have_a_place(tmp_path: Path) -> None:
    inputs = build(tmp_path)
    questions = make_questions(8, 0)
    for question in questions:
        question |= dict.fromkeys("ABCD", "") | {"answer": "forty-two", "category": "", "l2-category": ""}
    inputs.write_questions(questions, {"stage1": 1.0, "stage2": 1.0}, seed=0)
    text = Page(inputs.page()).text
    assert "Right answer: forty-two" in text
    assert "no chance level" in text
    assert "by subject" not in text


def test_uncommitted_changes_are_shown_at_the_top(inputs: ReportInputs) -> None:
    text = inputs.page(commit=replace(COMMIT, is_dirty=True))
    assert "To keep in mind" in text
    assert "with uncommitted changes" in text


def test_no_pictures_are_shown_when_none_are_asked_for(tmp_path: Path) -> None:
    inputs = build(tmp_path)
    inputs.change_json(LAYOUT.effective_config, report={"num_gallery_pictures": 0})
    assert "<img" not in inputs.page()
