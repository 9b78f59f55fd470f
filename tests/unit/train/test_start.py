"""What a start prepares, and that nodes which could not meet try another port."""

from pathlib import Path
from typing import Any

import pytest

from helpers.stage import make_run, stage_settings
from scripts.train import start
from scripts.train.run import Run
from scripts.train.trainer_process import StopRequests
from scripts.train.watch_files import read_watch_settings, write_watch_settings


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


def test_the_callback_is_told_ms_swifts_own_defaults_of_what_is_frozen(tmp_path: Path) -> None:
    settings = stage_settings()
    bare = make_run(tmp_path, type(settings)(**{**vars(settings), "flags": {}}))
    found = start.watch_settings_of(bare, None)
    assert (found.freeze_vit, found.freeze_aligner, found.freeze_llm) == (True, True, False)
    assert not found.custom_freezing
    assert found.resume_dir is None
