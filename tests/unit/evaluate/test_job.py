"""The key of an evaluation, its directory, and the questions as they are asked."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.evaluation_inputs import benchmark_rows, native_settings, serve_settings, write_rows
from scripts.common.errors import UserError
from scripts.evaluate import job
from scripts.evaluate.job import EvaluationJob, Share, held_directory, identity_of, prepare_task
from scripts.evaluate.provenance import Identity
from scripts.questions.tables import read_benchmark


def job_in(directory: Path, tsv: Path, **changes: Any) -> EvaluationJob:
    """An evaluation by the native backend."""
    asked = EvaluationJob(
        model_name="model",
        model_dir=directory,
        backend="native",
        benchmark="b",
        benchmark_tsv=tsv,
        control="none",
        serve=serve_settings(),
        settings=native_settings(),
        seed=0,
        num_seeds=1,
        serve_python=directory / "python",
        work_dir=directory,
    )
    return replace(asked, **changes)


def test_a_run_finds_nothing_of_an_earlier_one_but_its_answers(tmp_path: Path) -> None:
    for name in ("key/start1", "other/old", "mine"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("answers-0.jsonl", "Digits_exact_matching_result.pkl"):
        (tmp_path / "key" / name).touch()
    with held_directory(tmp_path, "key") as directory:
        assert [path.name for path in directory.iterdir()] == ["answers-0.jsonl"]
    assert (tmp_path / "other/old").exists()
    assert (tmp_path / "mine").exists()


@pytest.fixture
def identities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Identity]:
    """What decides the answers of an evaluation, with these changes."""
    tsv = write_rows(benchmark_rows(2), tmp_path / "b.tsv")
    monkeypatch.setattr(job, "versions", lambda *of: {})
    monkeypatch.setattr(job, "checked_sha256", lambda model_dir, manifest: "ab")
    return lambda **changes: identity_of(job_in(tmp_path, tsv, **changes))


def test_answers_of_a_seed_are_kept_when_others_are_asked_for_but_not_those_about_other_shuffled_pictures(
    identities: Callable[..., Identity],
) -> None:
    for control in ("none", "blind"):
        assert identities(control=control, seed=0) == identities(control=control, seed=1)
    assert identities(control="shuffled", seed=0) != identities(control="shuffled", seed=1)


def test_how_fast_it_is_asked_decides_no_answer(identities: Callable[..., Identity]) -> None:
    fast = serve_settings(num_replicas=4, num_nodes=2, startup_timeout_s=9)
    assert identities(serve=fast, num_seeds=3) == identities()
    assert identities(serve=serve_settings(flags={"max_new_tokens": 8})) != identities()
    assert identities(settings=native_settings(max_tokens=9)) != identities()


def test_answers_are_known_by_everything_that_decides_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "versions", lambda *of: {"torch": "2"})
    tsv = write_rows(benchmark_rows(2), tmp_path / "b.tsv")
    model_dir = tmp_path / "model"
    model_dir.mkdir()
    (model_dir / "config.json").write_text("{}")
    (model_dir / "model.safetensors").write_bytes(b"weights")

    def key(**changes: Any) -> str:
        return identity_of(job_in(model_dir, tsv, **changes)).key()

    keys = [key()]
    for changes in (
        {"backend": "vlmevalkit"}, {"benchmark": "c"}, {"control": "blind"}, {"control": "shuffled"},
        {"settings": native_settings(temperature=1)}, {"serve": serve_settings(flags={"max_new_tokens": 8})},
        {"serve": serve_settings(environment={"MAX_PIXELS": 1})}, {"serve": serve_settings(backend="vllm")},
    ):  # fmt: skip
        keys.append(key(**changes))
    (model_dir / "model.safetensors").write_bytes(b"other weights")
    keys.append(key())
    tsv.write_text(tsv.read_text().replace("Which digit?", "What digit?"))
    keys.append(key())
    monkeypatch.setattr(job, "versions", lambda *of: {"torch": "3"})
    keys.append(key())
    assert len(set(keys)) == len(keys)
    for changes in ({"model_name": "other"}, {"num_seeds": 4}, {"serve": serve_settings(num_replicas=8)}):
        assert key(**changes) == keys[-1], "who it is for and how fast it comes decides no answer"


@pytest.mark.parametrize("control", ["none", "blind", "shuffled"])
def test_a_control_is_asked_with_its_own_pictures_or_without_any(tmp_path: Path, control: str) -> None:
    tsv = write_rows(benchmark_rows(6), tmp_path / "b.tsv")
    table = read_benchmark(tsv)
    for name in ("plain", "control"):
        (tmp_path / name).mkdir()
    plain = prepare_task(job_in(tmp_path, tsv), table, tmp_path / "plain", "key")
    task = prepare_task(job_in(tmp_path, tsv, control=control), table, tmp_path / "control", "key")
    shown, own = ([question.image_sha256 for question in each.questions] for each in (task, plain))
    assert (task.is_blind, task.is_original) == (control == "blind", control != "shuffled")
    if control == "blind":
        assert shown == [None] * 6
    else:
        assert all(shown)
        assert [one == other for one, other in zip(shown, own, strict=True)] == [control == "none"] * 6
    asked_table = read_benchmark(task.lmu_data / "b.tsv")
    assert list(asked_table["image"] == table["image"]) == [control != "shuffled"] * 6


def test_each_question_is_asked_for_each_seed_from_the_first_on(tmp_path: Path) -> None:
    tsv = write_rows(benchmark_rows(6), tmp_path / "b.tsv")
    (tmp_path / "work").mkdir()
    several = job_in(tmp_path, tsv, seed=3, num_seeds=2)
    task = prepare_task(several, read_benchmark(tsv), tmp_path / "work", "key")
    assert (list(task.seeds), task.num_answers) == ([3, 4], 12)


def test_a_benchmark_without_any_picture_is_refused(tmp_path: Path) -> None:
    rows = [{**row, "image": ""} for row in benchmark_rows(3)]
    tsv = write_rows(rows, tmp_path / "b.tsv")
    with pytest.raises(UserError, match="no question has a picture"):
        prepare_task(job_in(tmp_path, tsv), read_benchmark(tsv, needs_pictures=False), tmp_path, "key")


def test_the_shares_of_several_nodes_are_all_questions_and_none_twice(tmp_path: Path) -> None:
    tsv = write_rows(benchmark_rows(7), tmp_path / "b.tsv")
    shares = []
    for number in range(3):
        directory = tmp_path / str(number)
        directory.mkdir()
        task = prepare_task(job_in(tmp_path, tsv), read_benchmark(tsv), directory, "key", Share(number, 3))
        shares.append([question.index for question in task.questions])
        assert task.indices == set(shares[-1])
    assert shares == [["0", "3", "6"], ["1", "4"], ["2", "5"]]


def test_more_nodes_than_questions_are_refused_by_the_key(tmp_path: Path) -> None:
    tsv = write_rows(benchmark_rows(2), tmp_path / "b.tsv")
    with pytest.raises(UserError, match=r"evaluate\.serve\.num_nodes: 3 found, but .* has 2 questions"):
        prepare_task(job_in(tmp_path, tsv), read_benchmark(tsv), tmp_path, "key", Share(2, 3))
