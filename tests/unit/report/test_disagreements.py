"""The page of disagreements shows every question that some models answered right and others wrong, and nothing else."""

import base64
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.evaluation_inputs import provenance
from helpers.processes import LIMIT_S
from helpers.report_inputs import ReportInputs, build
from scripts.common.errors import UserError
from scripts.common.files import sha256_of_file
from scripts.evaluate.provenance import write_provenance
from scripts.evaluate.records import read_records
from scripts.evaluate.same_questions import check_same_questions
from scripts.evaluate.scores import Benchmark
from scripts.report.disagreements import disagreed, first_choice, render_disagreements
from scripts.report.gallery import questions_of

CARD = re.compile(r'<li class="card" data-subject="([^"]*)" data-right="([^"]*)">')


@pytest.fixture
def inputs(tmp_path: Path) -> ReportInputs:
    return build(tmp_path, num_questions=60)


def benchmark_of(inputs: ReportInputs) -> Benchmark:
    records = {model: read_records(path) for model, path in inputs.record_paths.items()}
    return Benchmark("digits", inputs.questions_path, Path(), [], records, {})


def test_each_question_on_which_models_differ_has_a_card_and_no_other(inputs: ReportInputs) -> None:
    benchmark = benchmark_of(inputs)
    check_same_questions(benchmark.records, inputs.record_paths)
    cards = CARD.findall(render_disagreements(benchmark))
    models = ["graft", "stage1", "stage2"]
    expected = []
    for place, record in enumerate(benchmark.records["graft"]):
        right = [model for model in models if benchmark.records[model][place].correct]
        if 0 < len(right) < len(models):
            expected.append((record.subject or "", " ".join(right)))
    assert cards == expected and 10 < len(cards) < 60


def test_the_page_needs_nothing_from_outside_and_runs_its_own_script_alone(inputs: ReportInputs) -> None:
    page = render_disagreements(benchmark_of(inputs))
    for mark in ('src="http', 'href="http', "url(http", "@import", "<script src", "onclick"):
        assert mark not in page
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in page


def test_first_comes_what_the_first_model_has_over_the_last_if_there_is_anything(inputs: ReportInputs) -> None:
    questions = disagreed(questions_of(benchmark_of(inputs)))
    lost = [q for q in questions if "graft" in q.right_models and "stage2" not in q.right_models]
    gained = [q for q in questions if q not in lost and "stage2" in q.right_models and "graft" not in q.right_models]
    assert gained
    assert first_choice(gained) == ("stage2", "graft")
    assert first_choice([]) == (None, None)


def test_models_that_agree_have_a_page_that_says_so(inputs: ReportInputs) -> None:
    for model in inputs.record_paths:
        inputs.write_records(model, [r | {"correct": False, "score": 0.0} for r in inputs.read_records(model)])
    page = render_disagreements(benchmark_of(inputs))
    assert "The models agree on every question" in page and not CARD.search(page)


def test_records_of_another_benchmark_file_are_refused(inputs: ReportInputs) -> None:
    changed = [record | {"question": "Something else?"} for record in inputs.read_records("stage2")]
    inputs.write_records("stage2", changed)
    with pytest.raises(UserError, match="the question of question"):
        check_same_questions(benchmark_of(inputs).records, inputs.record_paths)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser (Debian's package chromium)")
def test_a_browser_filters_the_cards(root: Path, inputs: ReportInputs, tmp_path: Path) -> None:
    page_path = tmp_path / "page.html"
    command: list[str | Path] = [sys.executable, "scripts", "report.make_disagreements", "--name", "digits"]
    command += ["--benchmark", inputs.questions_path]
    subprocess.run([*command, "--records", *inputs.record_paths.values(), "--output", page_path], cwd=root, check=True)
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page_path.as_uri()]
    shown = subprocess.run(browser, capture_output=True, text=True, check=True, timeout=LIMIT_S).stdout
    questions = disagreed(questions_of(benchmark_of(inputs)))
    right, wrong = first_choice(questions)
    num = sum(right in q.right_models and wrong not in q.right_models for q in questions)
    assert f"{num} of {len(questions)} shown" in shown
    assert len(re.findall(r'<li class="card"[^>]*hidden', shown)) == len(questions) - num


def test_records_that_were_edited_by_hand_and_two_of_one_model_make_no_page(inputs: ReportInputs, root: Path) -> None:
    output = inputs.path("page.html")
    for model, path in inputs.record_paths.items():
        write_provenance(path.with_suffix(".json"), provenance(model, records_sha256=sha256_of_file(path)))

    def run(*paths: Path) -> subprocess.CompletedProcess[str]:
        options = ["--benchmark", str(inputs.questions_path), "--records", *map(str, paths), "--output", str(output)]
        command = [sys.executable, "scripts", "report.make_disagreements", "--name", "digits", *options]
        return subprocess.run(command, cwd=root, text=True, capture_output=True)

    paths = list(inputs.record_paths.values())
    assert run(*paths).returncode == 0
    output.unlink()
    other = inputs.path("other") / paths[0].name
    other.parent.mkdir()
    shutil.copyfile(paths[0], other)
    assert "are both of" in run(*paths, other).stderr
    lines = paths[0].read_text().splitlines()
    paths[0].write_text("\n".join([lines[0].replace("}", " }"), *lines[1:]]) + "\n")
    edited = run(*paths)
    assert edited.returncode == 1 and not output.exists()
    assert str(paths[0]) in edited.stderr
