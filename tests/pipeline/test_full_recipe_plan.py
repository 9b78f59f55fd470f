"""The full recipe plans on a machine without a GPU, a network or Slurm."""

import re
from collections.abc import Callable

import pytest

from helpers.workflow_run import WorkflowRun, planned_jobs, planned_rules

EVERY_STEP = {
    "donor", "dataset", "check_dataset", "benchmark", "graft_config", "graft", "fidelity", "stage1", "stage2", "evaluate",
    "table",
}  # fmt: skip


@pytest.fixture(scope="module")
def checkout(make_checkout: Callable[[str], WorkflowRun]) -> WorkflowRun:
    return make_checkout("plan")


def test_a_dry_run_of_the_default_configuration_plans_every_step(checkout: WorkflowRun) -> None:
    assert planned_rules(checkout.run("-n", "results/eval/mmmu.csv")) >= EVERY_STEP


def test_a_dry_run_of_the_recipe_to_the_letter_plans_every_step(checkout: WorkflowRun) -> None:
    output = checkout.run("-n", "--configfile", "config/simple_vl_8b.yaml")
    assert planned_rules(output) >= EVERY_STEP
    assert "results/simple_vl_8b/eval/mmmu.csv" in output


def test_questions_that_three_nodes_share_are_planned_as_three_jobs_a_model_and_only_these_have_gpus(
    checkout: WorkflowRun,
) -> None:
    (checkout.directory / "shares.yaml").write_text("evaluate: {serve: {num_nodes: 3, num_replicas: 4}}")
    output = checkout.run("-n", "--configfile", "config.yaml", "shares.yaml", "--", "results/eval/mmmu.csv")
    jobs = [job for job in planned_jobs(output) if job.startswith("answer_share")]
    assert len(jobs) == 3 * len(("parent", "graft", "stage1", "stage2"))
    resources = dict(re.findall(r"^rule (answer_share|evaluate):.*?^    resources: (.*?)$", output, re.M | re.S))
    assert "gres=gpu:4" in resources["answer_share"]
    assert "gres" not in resources["evaluate"]


def test_the_native_backend_fetches_the_listed_benchmarks_by_its_own_rule(checkout: WorkflowRun) -> None:
    (checkout.directory / "native.yaml").write_text(
        "evaluate: {backend: native, benchmarks: [mmmu, docvqa, mathvista]}"
    )
    output = checkout.run("-n", "--configfile", "config.yaml", "native.yaml")
    fetched = {job for job in planned_jobs(output) if job.startswith("native_benchmark")}
    assert fetched == {f"native_benchmark dataset={name}" for name in ("mmmu", "docvqa", "math_vista")}
    assert "benchmark" not in planned_rules(output)


def test_a_run_with_other_results_plans_targets_of_its_own(checkout: WorkflowRun) -> None:
    output = checkout.run("-n", "--configfile", "config/demo.yaml", "--config", "results=results/other")
    assert "results/other/eval/digits.csv" in output
    assert "results/demo" not in output


def test_a_mistyped_key_stops_the_plan_with_one_line_that_names_it(checkout: WorkflowRun) -> None:
    output = checkout.run("-n", "--configfile", "config/demo.yaml", "--config", "sed=1", status=1)
    assert "sed: unknown key (did you mean seed?)" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(("devices", "expected"), [("0,1", 1), ("", 0)])
def test_steps_that_would_use_this_machines_gpus_go_one_at_a_time(
    checkout: WorkflowRun, monkeypatch: pytest.MonkeyPatch, devices: str, expected: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    output = checkout.run("-n", "results/eval/mmmu.csv")
    asking = re.findall(r"^rule (\w+):(?:\n    .*)*?\n    resources: .*gpu_machine=(\d)", output, re.MULTILINE)
    assert dict(asking) == dict.fromkeys(("stage1", "stage2", "evaluate"), str(expected))
