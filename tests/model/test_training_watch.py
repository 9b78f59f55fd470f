"""The callback sees weights that are not the checkpoint's, counts what goes into the model, and loads what a plain resume
would not. Runs in the train environment."""

# ruff: noqa: E402 - the imports come after the check that there is a torch to import
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the train environment has it")

from safetensors.torch import save_file
from torch import nn

from scripts.common.errors import UserError
from scripts.common.processes import this_process
from scripts.train.starts import record_attempt
from scripts.train.step_counter import StepCounter
from scripts.train.watch import WatchCallback
from scripts.train.watch_files import WATCH_VARIABLE, WatchSettings, write_watch_settings
from scripts.train.weights import check_groups, count_parameters, differing_weights, load_weights, tied_names


class SmallGraft(nn.Module):
    """The names of the grafted model, with a linear layer for each of its parts."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.visual = nn.Module()
        self.model.visual.patch_embed = nn.Identity()
        self.model.visual.blocks = nn.Linear(2, 2)
        self.model.visual.merger = nn.Linear(2, 2)
        self.model.language_model = nn.Module()
        self.model.language_model.embed_tokens = nn.Embedding(4, 2)
        self.lm_head = nn.Linear(2, 4, bias=False)
        if tied:
            self.lm_head.weight = self.model.language_model.embed_tokens.weight


def save_on_disk_names(model: nn.Module, directory: Path, dtype: "torch.dtype | None" = None) -> Path:
    """As transformers saves it: visual.*, model.*, lm_head.*; a tied tensor once."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name in tied_names(model):
            continue
        name = name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")
        tensors[name] = tensor.clone().to(dtype or tensor.dtype)
    directory.mkdir(exist_ok=True)
    save_file(tensors, directory / "model.safetensors")
    return directory


@pytest.mark.parametrize("tied", [False, True])
def test_equal_weights_have_no_findings(tmp_path: Path, tied: bool) -> None:
    model = SmallGraft(tied)
    assert differing_weights(model, save_on_disk_names(model, tmp_path)) == []


def test_a_cast_to_the_training_dtype_is_no_difference(tmp_path: Path) -> None:
    model = SmallGraft()
    save_on_disk_names(model, tmp_path)
    assert differing_weights(model.to(torch.bfloat16), tmp_path) == []


def test_one_changed_value_is_found_by_name(tmp_path: Path) -> None:
    model = SmallGraft()
    save_on_disk_names(model, tmp_path)
    with torch.no_grad():
        model.model.visual.merger.weight[1, 1] += 1e-6
    assert differing_weights(model, tmp_path) == ["visual.merger.weight: other values than on disk"]


def test_a_tensor_that_was_initialised_anew_is_found(tmp_path: Path) -> None:
    model = SmallGraft()
    save_on_disk_names(model, tmp_path)
    model.model.language_model.q_norm = nn.Linear(2, 2, bias=False)
    assert differing_weights(model, tmp_path) == [
        "model.language_model.q_norm.weight: in the model, not in the checkpoint (newly initialised)"
    ]


def test_a_tensor_that_the_model_has_no_place_for_is_found(tmp_path: Path) -> None:
    model = SmallGraft()
    save_on_disk_names(model, tmp_path)
    del model.lm_head
    assert differing_weights(model, tmp_path) == ["lm_head.weight: in the checkpoint, not in the model"]


@pytest.mark.parametrize("tied", [False, True])
def test_a_resumed_model_gets_the_weights_that_literal_names_would_miss(tmp_path: Path, tied: bool) -> None:
    saved, resumed = SmallGraft(tied), SmallGraft(tied)
    save_on_disk_names(saved, tmp_path)
    literal = resumed.load_state_dict({"visual.merger.weight": torch.zeros(2, 2)}, strict=False)
    assert "model.visual.merger.weight" in literal.missing_keys  # what transformers only warns of
    assert differing_weights(resumed, tmp_path)
    load_weights(resumed, tmp_path)
    assert differing_weights(resumed, tmp_path) == []


def test_parameters_are_counted_once_by_group() -> None:
    model = SmallGraft(tied=True)
    model.model.visual.blocks.requires_grad_(False)
    everything, trainable = count_parameters(model)
    assert everything == {"vision_tower": 6, "aligner": 6, "language_model": 8}
    assert trainable == {"vision_tower": 0, "aligner": 6, "language_model": 8}


def watch_settings(**freezes: bool) -> WatchSettings:
    """What the launcher tells the callback; only the freeze flags matter here."""
    places = {"watch_dir": "", "stop_file": "", "launcher": {}, "model_dir": "", "dataset": "", "resume_from": None}
    return WatchSettings(**freezes, **places, deepspeed=None, custom_freezing=False, num_rows=0)


def test_groups_must_train_as_the_freeze_flags_say() -> None:
    settings = watch_settings(freeze_vit=True, freeze_llm=True, freeze_aligner=False)
    model = SmallGraft()
    model.requires_grad_(False)
    model.model.visual.merger.requires_grad_(True)
    check_groups(settings, *count_parameters(model))
    model.model.visual.merger.bias.requires_grad_(False)
    with pytest.raises(UserError, match="aligner: 4 of 6 parameters train; expected 6"):
        check_groups(settings, *count_parameters(model))
    model.model.visual.merger.requires_grad_(True)
    model.lm_head.requires_grad_(True)
    with pytest.raises(UserError, match="language_model: 8 of 16 parameters train; expected 0"):
        check_groups(settings, *count_parameters(model))
    check_groups(replace(settings, custom_freezing=True), *count_parameters(model))


def test_samples_and_tokens_are_counted_over_the_batches_of_a_step() -> None:
    counter, model = StepCounter(), SimpleNamespace(training=True)
    ids = torch.zeros(3, 5, dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[0, 3:] = 0
    counter.count(model, (), {"input_ids": ids, "attention_mask": mask})
    counter.count(model, (), {"input_ids": ids[:1], "attention_mask": None})
    assert counter.take() == (4, 13 + 5)
    assert counter.take() == (0, 0)


def test_rows_joined_into_one_are_told_by_their_bounds() -> None:
    counter = StepCounter()
    joined = {"input_ids": torch.zeros(1, 9, dtype=torch.long), "cu_seq_lens_q": torch.tensor([0, 4, 9])}
    counter.count(SimpleNamespace(training=True), (), joined)
    assert counter.take() == (2, 9)


def test_an_evaluation_is_not_counted() -> None:
    counter, ids = StepCounter(), torch.zeros(3, 5, dtype=torch.long)
    counter.count(SimpleNamespace(training=False), (), {"input_ids": ids})
    with torch.no_grad():
        counter.count(SimpleNamespace(training=True), (), {"input_ids": ids})
    assert counter.take() == (0, 0)


def test_ms_swift_can_load_the_callback_from_anywhere_by_its_path_alone(root: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from swift.callbacks import callbacks_map; from swift.utils import import_external_file\n"
        "import_external_file(sys.argv[1]); print(callbacks_map['vlgraft_watch'].__name__)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    loaded = subprocess.run(
        [sys.executable, "-c", code, str(root / "scripts/train/watch.py")],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert loaded.stdout.splitlines()[-1:] == ["WatchCallback"], loaded.stderr


# --- the trainer's events ---


NUM_ROWS = 10
FROZEN = {"freeze_vit": True, "freeze_llm": True, "freeze_aligner": False, "custom_freezing": False}


def stage1_model() -> SmallGraft:
    model = SmallGraft()
    model.requires_grad_(False)
    model.model.visual.merger.requires_grad_(True)
    return model


class Training:
    """A callback, and of ms-swift's trainer, its arguments and its state what the callback touches."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, model: SmallGraft, **settings: Any) -> None:
        self.model = model
        self.watch_dir = directory / "watch"
        self.watch_dir.mkdir()
        self.output_dir = directory / "trainer"
        self.output_dir.mkdir()
        record_attempt(directory, 0)
        model_dir = save_on_disk_names(model, directory / "model")
        about: dict[str, Any] = {
            "watch_dir": str(self.watch_dir), "stop_file": str(self.watch_dir / "stop"), "deepspeed": None,
            "launcher": this_process(), "model_dir": str(model_dir), "dataset": "rows.jsonl", "num_rows": NUM_ROWS,
            "resume_from": None, **FROZEN, **settings,
        }  # fmt: skip
        write_watch_settings(WatchSettings(**about))
        monkeypatch.setenv(WATCH_VARIABLE, str(self.watch_dir / "settings.json"))
        self.args = SimpleNamespace(
            process_index=0, local_process_index=0, world_size=1, device="cpu", optimizer=None,
            optim=SimpleNamespace(value="adamw_torch"), save_strategy="steps", save_total_limit=2,
            output_dir=str(self.output_dir), gradient_accumulation_steps=1, dataloader_drop_last=False,
            group_by_length=False,
        )  # fmt: skip
        self.state = SimpleNamespace(global_step=0, max_steps=5, num_train_epochs=1, save_steps=5, log_history=[])
        trainer = SimpleNamespace(model=model, train_dataset=[{}] * NUM_ROWS, _train_batch_size=2, _save=None)
        self.trainer = trainer
        self.callback = WatchCallback(self.args, trainer)

    def begin(self) -> dict[str, Any]:
        """What the launcher is told of a training that has begun."""
        self.callback.on_train_begin(self.args, self.state, None, model=self.model)
        begin: dict[str, Any] = json.loads((self.watch_dir / "begin.json").read_text())
        return begin

    def end_step(self, num_samples: int = 2) -> SimpleNamespace:
        """What the trainer is to do after one more step, in which so many samples of 7 tokens went into the model."""
        for hook in self.model._forward_pre_hooks.values():
            hook(self.model, (), {"input_ids": torch.zeros(num_samples, 7, dtype=torch.long)})
        self.state.global_step += 1
        control = SimpleNamespace(should_save=False, should_log=False, should_training_stop=False)
        self.callback.on_step_end(self.args, self.state, control)
        return control

    def log(self, **logs: float) -> None:
        self.callback.on_log(self.args, self.state, None, logs)


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Training]]:
    """Makes trainings of stage 1 with 10 rows; the signals are handled as before afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield lambda **settings: Training(tmp_path, monkeypatch, stage1_model(), **settings)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def refused(training: Training, match: str) -> None:
    """No step is trained, and the launcher is not told that it has begun."""
    with pytest.raises(UserError, match=match):
        training.begin()
    assert not (training.watch_dir / "begin.json").exists()


def test_a_sound_training_begins_and_tells_what_each_step_is_to_see(training: Callable[..., Training]) -> None:
    begin = training().begin()
    assert begin["samples_per_step"] == [2] * 5
    assert begin["num_trainable_parameters"] == {"vision_tower": 0, "aligner": 6, "language_model": 0}
    assert begin["trainable"] == ["model.visual.merger.bias", "model.visual.merger.weight"]


def test_a_tower_that_is_frozen_gets_no_backward_pass(training: Callable[..., Training]) -> None:
    run = training()
    embedding = run.model.model.visual.patch_embed
    assert embedding(torch.ones(2, requires_grad=True)).requires_grad
    run.begin()
    assert not embedding(torch.ones(2, requires_grad=True)).requires_grad


def test_a_training_of_which_rows_were_dropped_does_not_begin(training: Callable[..., Training]) -> None:
    refused(training(num_rows=NUM_ROWS + 1), "rows.jsonl: ms-swift kept 10 of 11 rows")


def test_a_training_with_weights_that_are_not_those_on_disk_does_not_begin(training: Callable[..., Training]) -> None:
    run = training()
    with torch.no_grad():
        run.model.lm_head.weight[0, 0] += 1
    refused(run, "weights in memory are not those on disk: 1 tensor .*lm_head.weight: other values")


def test_a_training_whose_groups_are_not_those_of_the_flags_does_not_begin(training: Callable[..., Training]) -> None:
    refused(training(freeze_llm=False), "language_model: 0 of 16 parameters train; expected 16")


def test_a_training_that_was_to_be_resumed_and_begins_anew_does_not_begin(
    training: Callable[..., Training], tmp_path: Path
) -> None:
    refused(training(resume_from=str(tmp_path / "checkpoint-3")), "training would begin at step 0, expected 3")


def test_a_training_that_was_not_to_be_resumed_begins_at_no_later_step(training: Callable[..., Training]) -> None:
    run = training()
    run.state.global_step = 3
    refused(run, "training would begin at step 3, expected 0")


def test_a_resumed_training_is_held_against_its_checkpoint_and_not_against_the_input(
    training: Callable[..., Training], tmp_path: Path
) -> None:
    run = training(resume_from=str(tmp_path / "checkpoint-3"))
    with torch.no_grad():
        run.model.model.visual.merger.bias += 1
    save_on_disk_names(run.model, tmp_path / "checkpoint-3")
    run.state.global_step, run.state.log_history = 3, [{"step": 3, "loss": 1.0}]
    assert run.begin()["first_step"] == 3


def test_a_problem_of_another_rank_ends_this_one_too(
    training: Callable[..., Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training()
    monkeypatch.setattr(
        run.callback, "_all_reduce_max", lambda value: 1
    )  # of all ranks' values, of which another one's is 1
    refused(run, "another rank has ended the run")


def test_too_little_room_for_the_checkpoints_ends_the_run_before_a_step(
    training: Callable[..., Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.train.checkpoint_space.free_bytes", lambda directory: 10)
    refused(training(), "are needed for checkpoints, 10 B are free")


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run(training: Callable[..., Training], loss: float) -> None:
    run = training()
    run.begin()
    run.log(loss=2.0)
    run.log(learning_rate=0.1)  # a line without a loss is none of its business
    with pytest.raises(UserError, match=f"step 0: the loss is {loss}"):
        run.log(loss=loss)


def test_a_first_loss_after_a_resume_that_does_not_go_on_ends_the_run_and_a_later_one_does_not(
    training: Callable[..., Training], tmp_path: Path
) -> None:
    run = training(resume_from=str(tmp_path / "checkpoint-3"))
    save_on_disk_names(run.model, tmp_path / "checkpoint-3")
    run.state.global_step, run.state.log_history = 3, [{"step": step, "loss": 1.0} for step in (1, 2, 3)]
    run.begin()
    with pytest.raises(UserError, match=r"the first loss after the resume is 9\.0000, at most 2\.5000"):
        run.log(loss=9.0)
    run.log(loss=1.1)
    run.log(loss=9.0)


def test_each_step_is_recorded_with_what_went_into_the_model(training: Callable[..., Training]) -> None:
    run = training()
    run.begin()
    assert not run.end_step().should_save
    run.end_step()
    lines = (run.watch_dir / "steps-rank0.jsonl").read_text().split("\n")
    records = [json.loads(line) for line in lines if line]
    assert [(r["step"], r["num_samples"], r["num_tokens"]) for r in records] == [(1, 2, 14), (2, 2, 14)]
    assert json.loads((run.watch_dir / "progress.json").read_text())["num_samples"] == 4


@pytest.mark.parametrize("num_samples", [1, 3])
def test_a_step_that_saw_another_number_of_samples_than_was_dealt_ends_the_run(
    training: Callable[..., Training], num_samples: int
) -> None:
    run = training()
    run.begin()
    run.end_step()
    with pytest.raises(UserError, match=f"step 2 saw {num_samples} samples, 2 expected"):
        run.end_step(num_samples)


def test_the_samples_of_a_step_are_those_of_all_ranks(
    training: Callable[..., Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training()
    run.args.world_size = 2
    assert run.begin()["samples_per_step"] == [4, 4, 2, 4, 4]
    monkeypatch.setattr(run.callback, "_all_reduce_sum", lambda value: value + 2)
    run.end_step()
    with pytest.raises(UserError, match="step 2 saw 3 samples, 4 expected"):
        run.end_step(1)


def test_each_step_is_compared_with_what_was_dealt_to_it(training: Callable[..., Training]) -> None:
    run = training()
    run.args.per_device_train_batch_size = run.trainer._train_batch_size = 4
    assert run.begin()["samples_per_step"] == [4, 4, 2, 4, 4]
    for num_samples in (4, 4, 2):
        run.end_step(num_samples)
    with pytest.raises(UserError, match="step 4 saw 2 samples, 4 expected"):
        run.end_step(2)


def test_rows_that_are_grouped_by_length_are_dealt_as_the_sampler_does(training: Callable[..., Training]) -> None:
    run = training()
    run.args.world_size, run.args.group_by_length = 3, True
    assert run.begin()["samples_per_step"] == [6, 4, 6, 4, 6]


def test_a_training_whose_rows_make_no_batch_does_not_begin(training: Callable[..., Training]) -> None:
    run = training()
    run.args.world_size = 11
    refused(run, "rows.jsonl: 10 rows for 11 processes .* expected at least one a process")


def test_the_last_step_is_saved_whatever_the_interval(training: Callable[..., Training]) -> None:
    run = training()
    run.begin()
    controls = [run.end_step() for _ in range(5)]
    assert [control.should_save for control in controls] == [False] * 4 + [True]


@pytest.mark.parametrize("asked_by", ["signal", "stop file", "launcher is gone"])
def test_a_run_that_is_to_stop_saves_after_the_step_in_hand(training: Callable[..., Training], asked_by: str) -> None:
    run = training()
    run.begin()
    assert not run.end_step().should_training_stop
    if asked_by == "signal":
        signal.raise_signal(signal.SIGTERM)
    elif asked_by == "stop file":
        (run.watch_dir / "stop").touch()
    else:
        launcher = {**run.callback.settings.launcher, "start_time": "0"}  # its number is another process's now
        run.callback.settings = replace(run.callback.settings, launcher=launcher)
    control = run.end_step()
    assert (control.should_save, control.should_training_stop) == (True, True)


def test_a_run_stops_where_another_rank_is_to(
    training: Callable[..., Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training()
    run.begin()
    monkeypatch.setattr(run.callback, "_all_reduce_max", lambda value: 1)
    assert run.end_step().should_training_stop


def save(run: Training, step_on_disk: int) -> Path:
    checkpoint_dir = run.output_dir / f"checkpoint-{run.state.global_step}"
    checkpoint_dir.mkdir()
    state = {"global_step": step_on_disk, "max_steps": 5, "log_history": []}
    (checkpoint_dir / "trainer_state.json").write_text(json.dumps(state))
    save_on_disk_names(run.model, checkpoint_dir)
    run.callback.on_save(run.args, run.state, None)
    return checkpoint_dir


def test_a_checkpoint_is_marked_whole_once_it_is_saved_and_not_saved_again_at_the_end_of_its_epoch(
    training: Callable[..., Training],
) -> None:
    run = training()
    run.begin()
    run.end_step()
    complete = json.loads((save(run, 1) / "complete.json").read_text())
    assert complete["files"].keys() == {"model.safetensors", "trainer_state.json"}
    records = ("watch/begin.json", "attempts.jsonl", "watch/steps-rank0.jsonl")
    assert complete["records"].keys() == {f"../../{name}" for name in records}
    control = SimpleNamespace(should_save=True)
    assert not run.callback.on_epoch_end(run.args, run.state, control).should_save
    run.end_step()
    control.should_save = True
    assert run.callback.on_epoch_end(run.args, run.state, control).should_save


def test_a_frozen_tensor_that_changed_ends_the_run_at_its_first_checkpoint(training: Callable[..., Training]) -> None:
    run = training()
    run.begin()
    run.end_step()
    with torch.no_grad():
        run.model.lm_head.weight += 1
    with pytest.raises(UserError, match=r"step 1: 1 tensor \(lm_head\.weight\) changed though frozen"):
        save(run, 1)


def test_a_run_that_is_to_stop_is_not_kept_by_comparing_weights(training: Callable[..., Training]) -> None:
    run = training()
    run.begin()
    (run.watch_dir / "stop").touch()
    run.end_step()
    with torch.no_grad():
        run.model.lm_head.weight += 1
    assert (save(run, 1) / "complete.json").exists()


def test_a_checkpoint_that_holds_another_step_is_not_marked_whole(training: Callable[..., Training]) -> None:
    run = training()
    run.begin()
    run.end_step()
    with pytest.raises(UserError, match="holds another step than 1"):
        save(run, 0)
    assert not (run.output_dir / "checkpoint-1/complete.json").exists()


def test_a_resume_and_a_save_are_those_that_know_the_names_on_disk(
    training: Callable[..., Training], tmp_path: Path
) -> None:
    run = training()
    saved: list[Any] = []
    run.trainer._save = lambda output_dir, state_dict: saved.append(state_dict)
    run.callback._save_tied_weights_once(run.trainer)
    run.trainer.model = SmallGraft(tied=True)
    run.trainer._save("somewhere", dict(run.trainer.model.state_dict()))
    assert "lm_head.weight" not in saved[0]
    assert "model.language_model.embed_tokens.weight" in saved[0]
    other = SmallGraft()
    save_on_disk_names(other, tmp_path / "other")
    run.trainer._load_from_checkpoint(str(tmp_path / "other"), run.model)
    assert differing_weights(run.model, tmp_path / "other") == []
