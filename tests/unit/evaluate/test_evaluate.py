"""What evaluate.py does with the answers of several nodes, and what it says of its result."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.evaluation_inputs import answer, benchmark_rows, serve_settings, vlmevalkit_settings, write_rows
from scripts.common.errors import UserError
from scripts.evaluate.answer_log import line_of
from scripts.evaluate.evaluate import adopt_shares, provenance_of
from scripts.evaluate.job import EvaluationJob, Share, prepare_task
from scripts.evaluate.provenance import Identity, ServeIdentity, Timing
from scripts.questions.tables import read_benchmark


@pytest.fixture
def job(tmp_path: Path) -> EvaluationJob:
    """Seven questions for two nodes."""
    return EvaluationJob(
        model_name="stage2",
        model_dir=tmp_path / "results/stage2/checkpoint",
        backend="vlmevalkit",
        benchmark="digits",
        benchmark_tsv=write_rows(benchmark_rows(7), tmp_path / "b.tsv"),
        control="none",
        serve=serve_settings(num_nodes=2),
        settings=vlmevalkit_settings(),
        seed=0,
        num_seeds=1,
        serve_python=tmp_path / "python",
        work_dir=tmp_path / "work",
    )


def test_a_checkpoint_is_named_relative_to_the_working_directory(
    job: EvaluationJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = ServeIdentity("transformers", {}, {})
    identity = Identity("ab", "vlmevalkit", "digits", "cd", "none", None, serve, {}, {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "records.jsonl").write_bytes(b"")
    found = provenance_of(job, identity, 7, Timing(1, 2, 7), tmp_path / "records.jsonl")
    assert found.records_sha256 == hashlib.sha256(b"").hexdigest()
    assert (found.model, found.model_dir) == ("stage2", "results/stage2/checkpoint")
    assert (found.checkpoint_sha256, found.serve) == ("ab", serve)
    assert (found.num_questions, found.num_asked_before, found.wall_time_s) == (7, 0, 3)


def write_share(job: EvaluationJob, number: int, indices: list[str]) -> None:
    path = job.share_dir(Share(number, 2)) / "key" / "answers-0.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(line_of(answer(index), "key:0") for index in indices))


def test_the_answers_of_all_nodes_are_put_together_or_the_evaluation_is_refused(job: EvaluationJob) -> None:
    directory = job.work_dir / "key"
    directory.mkdir(parents=True)
    task = prepare_task(job, read_benchmark(job.benchmark_tsv), directory, "key")
    write_share(job, 0, ["0", "2", "4", "6"])
    with pytest.raises(UserError, match="4 of 7 answers found in the shares of 2 nodes"):
        adopt_shares(job, task)
    write_share(job, 1, ["1", "3", "5"])
    adopt_shares(job, task)
    assert sorted(each.index for each in task.answers()[0]) == [str(number) for number in range(7)]


def test_answers_of_another_number_of_nodes_are_not_taken(job: EvaluationJob) -> None:
    directory = job.work_dir / "key"
    directory.mkdir(parents=True)
    task = prepare_task(job, read_benchmark(job.benchmark_tsv), directory, "key")
    for number, indices in enumerate((["0", "2", "4", "6"], ["1", "3", "5"])):
        write_share(job, number, indices)
    with pytest.raises(UserError, match="0 of 7 answers found in the shares of 3 nodes"):
        adopt_shares(replace(job, serve=serve_settings(num_nodes=3)), task)
