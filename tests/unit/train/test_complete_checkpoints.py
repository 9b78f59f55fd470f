"""A cut-off checkpoint is never resumed; a changed one neither, nor is it removed."""

import json
import re
import shutil
from pathlib import Path

import pytest

from helpers.kills import killed_at_each_removal
from helpers.trained_checkpoint import WEIGHTS, make_trained
from scripts.common.errors import UserError
from scripts.train.complete_checkpoints import (
    check_unchanged,
    contents_of_share,
    files_of,
    is_complete,
    last_complete,
    mark_complete,
    remove_incomplete,
    trainer_checkpoints,
)


def test_a_checkpoint_is_complete_only_with_every_file_at_its_size(tmp_path: Path) -> None:
    checkpoint = make_trained(tmp_path / "checkpoint-4", WEIGHTS)
    assert not is_complete(checkpoint)
    mark_complete(checkpoint)
    assert is_complete(checkpoint)
    (checkpoint / "optimizer.pt").write_bytes(b"sta")
    assert not is_complete(checkpoint)
    (checkpoint / "optimizer.pt").unlink()
    assert not is_complete(checkpoint)


def test_a_checkpoint_that_somebody_changed_is_kept_and_named(tmp_path: Path) -> None:
    checkpoint = make_trained(tmp_path / "checkpoint-4", WEIGHTS)
    mark_complete(checkpoint)
    (checkpoint / "optimizer.pt").write_bytes(b"edited by hand")
    with pytest.raises(
        UserError, match=r"checkpoint-4/optimizer\.pt: sha256 \w+ of 14 bytes found.*changed after it was saved"
    ):
        remove_incomplete(tmp_path)
    assert checkpoint.is_dir()
    (checkpoint / "scheduler.pt").unlink(missing_ok=True)
    next(path for path in checkpoint.glob("*.safetensors")).unlink()
    assert remove_incomplete(tmp_path) == [checkpoint], "a removal that was cut off"


def test_an_empty_or_torn_mark_is_no_mark(tmp_path: Path) -> None:
    checkpoint = make_trained(tmp_path / "checkpoint-4", WEIGHTS)
    for text in ("", '{"files": ', "[]"):
        (checkpoint / "complete.json").write_text(text)
        assert not is_complete(checkpoint)


def test_cut_off_checkpoints_are_removed_and_the_last_whole_one_is_found(tmp_path: Path) -> None:
    for step in (4, 8, 12):
        make_trained(tmp_path / f"checkpoint-{step}", WEIGHTS)
    (tmp_path / "last-checkpoint").symlink_to("checkpoint-12")
    mark_complete(tmp_path / "checkpoint-4")
    mark_complete(tmp_path / "checkpoint-8")
    assert [path.name for path in remove_incomplete(tmp_path)] == ["checkpoint-12"]
    found = last_complete(tmp_path)
    assert found is not None
    assert found.name == "checkpoint-8"
    assert not (tmp_path / "checkpoint-12").exists()


def test_wherever_the_removal_of_checkpoints_is_killed_the_next_one_removes_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a whole one that the trainer was removing, as it does with the oldest."""
    trainer_dir = tmp_path / "trainer"

    def make_three() -> None:
        shutil.rmtree(trainer_dir, ignore_errors=True)
        for step in (4, 8, 12):
            make_trained(trainer_dir / f"checkpoint-{step}", WEIGHTS)
        mark_complete(trainer_dir / "checkpoint-4")
        mark_complete(trainer_dir / "checkpoint-8")

    def rotate_and_clean() -> None:
        shutil.rmtree(trainer_dir / "checkpoint-4")
        remove_incomplete(trainer_dir)

    numbers = [n for n in killed_at_each_removal(rotate_and_clean, make_three, monkeypatch) if checked(n, trainer_dir)]
    assert numbers[0] == 0
    assert len(numbers) > 6


def checked(number: int, trainer_dir: Path) -> bool:
    """What a removal that was killed leaves is removed by the next one, and the last whole checkpoint stays."""
    remove_incomplete(trainer_dir)
    left = [path.name for path in trainer_checkpoints(trainer_dir)]
    assert left == (["checkpoint-4", "checkpoint-8"] if number == 0 else ["checkpoint-8"])
    return is_complete(trainer_dir / "checkpoint-8")


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (900, 1000):
        mark_complete(make_trained(tmp_path / f"checkpoint-{step}", WEIGHTS))
    found = last_complete(tmp_path)
    assert found is not None
    assert found.name == "checkpoint-1000"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The checkpoint of a training with two records."""
    for name in ("begin.json", "steps-rank0.jsonl"):
        (tmp_path / "watch").mkdir(exist_ok=True)
        (tmp_path / "watch" / name).write_text('{"step": 4}\n')
    checkpoint = make_trained(tmp_path / "trainer/checkpoint-4", WEIGHTS)
    mark_complete(checkpoint, sorted((tmp_path / "watch").iterdir()))
    return checkpoint


def flip(path: Path) -> None:
    """One bit: size and form stay."""
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer_state.json"])
def test_a_flipped_bit_in_a_file_of_the_checkpoint_is_named(saved: Path, name: str) -> None:
    check_unchanged(saved)
    flip(saved / name)
    assert is_complete(saved), "by its sizes"
    expected = f"{re.escape(name)}: sha256 .* it was changed after it was saved; put it back, or remove .*checkpoint-4 to go on"
    with pytest.raises(UserError, match=expected):
        check_unchanged(saved)


def test_an_edited_record_is_named_and_one_that_grew_is_not(saved: Path) -> None:
    steps_path = saved.parent.parent / "watch/steps-rank0.jsonl"
    with open(steps_path, "a") as file:
        file.write('{"step": 5}\n')
    check_unchanged(saved, is_last_start=True)
    flip(steps_path)
    with pytest.raises(UserError, match=r"watch/steps-rank0\.jsonl: sha256 .*to train from the first step"):
        check_unchanged(saved)
    steps_path.unlink()
    with pytest.raises(UserError, match=r"watch/steps-rank0\.jsonl: not found"):
        check_unchanged(saved)


def test_what_each_start_writes_anew_is_compared_with_the_last_starts_checkpoint_alone(saved: Path) -> None:
    (saved.parent.parent / "watch/begin.json").write_text('{"step": 8}\n')
    check_unchanged(saved)
    with pytest.raises(UserError, match=r"watch/begin\.json: sha256"):
        check_unchanged(saved, is_last_start=True)


def test_an_edited_complete_json_is_named_and_its_checkpoint_stays(saved: Path) -> None:
    mark = json.loads((saved / "complete.json").read_text())
    mark["files"]["optimizer.pt"]["num_bytes"] += 1
    (saved / "complete.json").write_text(json.dumps(mark))
    with pytest.raises(UserError, match=r"complete\.json: edited by hand.*or remove .*checkpoint-4 to go on"):
        remove_incomplete(saved.parent)
    assert saved.is_dir()


def test_a_checkpoint_of_another_training_is_not_gone_on_from(saved: Path) -> None:
    """As when somebody copies the work directory of a stage to the name that another one looks for."""
    run_dir = saved.parent.parent
    other_dir = shutil.copytree(run_dir, run_dir.parent / "other")
    expected = (
        f"checkpoint-4: saved by the training {run_dir.name}, .*expected one of other, .*; remove {other_dir}, and give"
    )
    with pytest.raises(UserError, match=expected):
        check_unchanged(other_dir / "trainer/checkpoint-4")


def test_the_ranks_read_each_file_once_and_what_none_of_them_saw_is_read(tmp_path: Path) -> None:
    checkpoint = make_trained(tmp_path / "checkpoint-4", WEIGHTS)
    shares = [contents_of_share(checkpoint, number, 2) for number in range(2)]
    assert sorted(name for share in shares for name in share) == [path.name for path in files_of(checkpoint)]
    mark_complete(checkpoint, known=shares[0] | shares[1])
    by_ranks = (checkpoint / "complete.json").read_text()
    for known in ({}, shares[0], shares[1]):
        mark_complete(checkpoint, known=known)
        assert (checkpoint / "complete.json").read_text() == by_ranks
