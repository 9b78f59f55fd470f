"""What a start prepares, and that nodes which could not meet try another port."""

from pathlib import Path
from typing import Any

import pytest

from helpers.stage import make_run, stage_settings
from scripts.common.errors import UserError
from scripts.train import start
from scripts.train.run import Run
from scripts.train.trainer_process import StopRequests
from scripts.train.watch_files import WATCH_VARIABLE, read_watch_settings, write_watch_settings


def test_where_the_nodes_could_not_meet_another_port_is_tried(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[Any] = [start.RendezvousFailed("taken"), start.RendezvousFailed("taken"), ["the command"]]

    def run_trainer(*_: object) -> list[str]:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(start, "run_trainer", run_trainer)
    assert start.run_trainer_at_free_port(run, None, StopRequests()) == ["the command"]
    results[:] = [start.RendezvousFailed("taken")] * 4
    with pytest.raises(start.RendezvousFailed):
        start.run_trainer_at_free_port(run, None, StopRequests())
    assert len(results) == 1


def test_the_callback_reads_the_settings_that_the_launcher_wrote(tmp_path: Path) -> None:
    run = make_run(tmp_path, stage_settings(deepspeed="zero2", flags={"freeze_parameters": ["visual"]}))
    settings = start.watch_settings_of(run, tmp_path / "trainer/checkpoint-8")
    write_watch_settings(settings)
    found = read_watch_settings(run.watch.settings)
    assert found == settings
    assert (found.freeze_vit, found.freeze_aligner, found.custom_freezing) == (True, False, True)
    assert found.resume_dir == tmp_path / "trainer/checkpoint-8"
    assert found.files == run.watch


def test_the_callback_gets_ms_swifts_own_defaults_of_what_is_frozen(tmp_path: Path) -> None:
    settings = stage_settings()
    bare = make_run(tmp_path, type(settings)(**{**vars(settings), "flags": {}}))
    found = start.watch_settings_of(bare, None)
    assert (found.freeze_vit, found.freeze_aligner, found.freeze_llm) == (True, True, False)
    assert not found.custom_freezing
    assert found.resume_dir is None


def prepared_run(run_dir: Path, monkeypatch: pytest.MonkeyPatch, num_gpus: int, **settings: Any) -> Run:
    """A training on a machine with so many GPUs and with ms-swift."""
    run = make_run(run_dir, stage_settings(**settings), model_config={"model_type": "qwen2_5_vl", "dtype": "float32"})
    run.watch.path.mkdir(exist_ok=True)
    monkeypatch.setattr(start, "package_dir", lambda *_: Path("/swift"))
    monkeypatch.setattr(start, "num_gpus", lambda *_: num_gpus)
    return run


def test_more_processes_than_gpus_are_refused_and_none_are_needed_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for num_gpus, device in ((4, "cuda"), (8, "cuda"), (0, "cpu")):
        run = prepared_run(tmp_path, monkeypatch, num_gpus, num_processes_per_node=4)
        command, _ = start.prepare_start(run, None)
        assert ("--use_cpu" in command.argv) == (device == "cpu")
    run = prepared_run(tmp_path, monkeypatch, 3, num_processes_per_node=4)
    with pytest.raises(UserError, match=r"num_processes_per_node: 4 found, at most 3 expected, one for each GPU"):
        start.prepare_start(run, None)


def test_a_start_finds_nothing_that_an_earlier_one_left_but_the_records_of_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepared_run(tmp_path, monkeypatch, 0)
    names = ("begin.json", "progress.json", "stop", "failure-rank0.json", "rank0.json", "steps-rank0.jsonl")
    for name in names:
        (run.watch.path / name).write_text("{}")
    lock_path = run.cache_dir / "torch_extensions/py311/fused_adam/lock"
    lock_path.parent.mkdir(parents=True)
    lock_path.touch()
    _, environment = start.prepare_start(run, run.trainer_dir / "checkpoint-3")
    assert sorted(path.name for path in run.watch.path.iterdir()) == ["settings.json", "steps-rank0.jsonl"]
    assert not lock_path.exists(), "torch would wait for it for ever"
    settings = read_watch_settings(Path(environment[WATCH_VARIABLE]))
    assert settings.resume_dir == run.trainer_dir / "checkpoint-3"
    assert (settings.num_rows, settings.freeze_vit, settings.freeze_llm) == (3, True, True)


def test_a_training_on_several_nodes_is_started_by_an_srun_without_the_options_of_the_step_that_it_runs_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepared_run(tmp_path, monkeypatch, 1, num_nodes=2)
    monkeypatch.setattr(start, "node_launcher", lambda *_: ["srun", "--nodes=2"])
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    command, environment = start.prepare_start(run, None)
    assert command.argv[:2] == ["srun", "--nodes=2"]
    assert "SLURM_NTASKS" not in environment
    assert environment["SLURM_JOB_ID"] == "7"
    assert WATCH_VARIABLE in environment
