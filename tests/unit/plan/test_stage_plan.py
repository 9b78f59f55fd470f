"""Steps, checkpoints and memory of a stage; whether it fits a card, and the mildest change with which it does."""

import pytest

from helpers.published_pairs import CONFIGS_DIR
from helpers.stage import whole_model_settings
from scripts.plan.memory import GIB, Sharding
from scripts.plan.models import planned_model
from scripts.plan.rows import PlannedRows
from scripts.plan.stacks import Model
from scripts.plan.stage_plan import Verdict, hardware_of, plan_stage, remedy, trained_parts, verdict

ROWS = PlannedRows(1000, 720, 400, 700, 8192, "made up")
FLAGS = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 8,
    "max_length": 8192,
    "save_steps": 10,
    "num_train_epochs": 2,
}


@pytest.fixture(scope="module")
def model() -> Model:
    dirs = {"vl": CONFIGS_DIR / "Qwen2.5-VL-7B-Instruct", "llm": CONFIGS_DIR / "Qwen3-8B"}
    return planned_model({"vl": {}, "llm": {}}, dirs).model


def test_the_last_batch_of_an_epoch_is_a_step_and_each_save_a_checkpoint(model: Model) -> None:
    settings = whole_model_settings(FLAGS, num_nodes=2, num_processes_per_node=4, deepspeed="zero2")
    plan = plan_stage("stage2", settings, model, ROWS, "bfloat16")
    assert (plan.global_batch, plan.num_steps, plan.num_epochs) == (128, 16, 2)
    assert (plan.num_checkpoints, plan.num_kept) == (2, 2)
    assert plan.written_bytes == 2 * plan.checkpoint_bytes


def test_a_number_of_steps_is_taken_as_it_is_and_the_oldest_checkpoint_goes_when_the_next_is_there(
    model: Model,
) -> None:
    settings = whole_model_settings({**FLAGS, "num_train_epochs": None, "max_steps": 95, "save_total_limit": 2})
    plan = plan_stage("stage2", settings, model, ROWS, "bfloat16")
    assert (plan.num_steps, plan.num_checkpoints) == (95, 10)
    assert plan.peak_disk_bytes == 3 * plan.checkpoint_bytes


def test_the_tower_is_checkpointed_as_the_language_model_unless_it_has_a_flag_of_its_own() -> None:
    for of_model, of_tower, expected in (
        (None, None, True),
        (True, False, False),
        (False, None, False),
        (False, True, True),
    ):
        flags = {"gradient_checkpointing": of_model, "vit_gradient_checkpointing": of_tower}
        given = {name: value for name, value in flags.items() if value is not None}
        assert trained_parts(whole_model_settings(given)).is_tower_checkpointed is expected


@pytest.mark.parametrize(
    ("deepspeed", "sharding", "is_offloaded"),
    [
        (None, Sharding.NONE, False), ("zero0", Sharding.NONE, False), ("zero1", Sharding.ZERO1, False),
        ("zero2_offload", Sharding.ZERO2, True), ("zero3", Sharding.ZERO3, False),
    ],
)  # fmt: skip
def test_deepspeeds_names_are_known(deepspeed: str | None, sharding: Sharding, is_offloaded: bool) -> None:
    hardware = hardware_of(whole_model_settings(deepspeed=deepspeed), "bfloat16")
    assert (hardware.sharding, hardware.is_offloaded, hardware.weight_bytes) == (sharding, is_offloaded, 2)


def test_ligers_loss_keeps_no_logits(model: Model) -> None:
    plan = plan_stage("stage2", whole_model_settings({**FLAGS, "use_liger_kernel": True}), model, ROWS, "bfloat16")
    assert plan.memory_of_longest.logits == 0


def test_a_stage_fits_is_tight_or_does_not_fit_and_the_mildest_change_is_named(model: Model) -> None:
    settings = whole_model_settings(FLAGS, num_processes_per_node=8, deepspeed="zero2")
    plan = plan_stage("stage2", settings, model, ROWS, "bfloat16")
    middle_gib, longest_gib = (each.total / GIB for each in (plan.memory_of_median, plan.memory_of_longest))
    assert verdict(plan, longest_gib * 1.1) is Verdict.FITS
    assert verdict(plan, middle_gib * 1.1) is Verdict.TIGHT
    assert verdict(plan, middle_gib) is Verdict.NOT
    found = remedy("stage2", settings, model, ROWS, "bfloat16", 80)
    assert found == "per_device_train_batch_size: 1 with gradient_accumulation_steps: 16"
    assert "zero3" in str(remedy("stage2", settings, model, ROWS, "bfloat16", 45))
    assert remedy("stage2", settings, model, ROWS, "bfloat16", 5) is None
