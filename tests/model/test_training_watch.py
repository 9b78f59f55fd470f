"""The callback sees weights that are not the checkpoint's, counts what goes into the model, and loads what a plain resume
would not. Runs in the train environment."""

# ruff: noqa: E402 - the imports come after the check that there is a torch to import
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="the train environment has it")

from safetensors.torch import save_file
from torch import nn

from scripts.common.errors import UserError
from scripts.train.step_counter import StepCounter
from scripts.train.watch_files import WatchSettings
from scripts.train.weights import check_groups, count_parameters, differing_weights, load_weights, tied_names


class SmallGraft(nn.Module):
    """The names of the grafted model, with a linear layer for each of its parts."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.visual = nn.Module()
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
