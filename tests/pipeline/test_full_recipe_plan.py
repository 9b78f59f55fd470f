"""The full recipe plans on a machine without a GPU, a network or Slurm."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from helpers.workflow_run import WorkflowRun, planned_jobs, planned_rules

EVERY_STEP = {
    "donor", "donor_check", "dataset", "check_dataset", "benchmark", "check_limits", "graft_config", "model_files", "graft",
    "fidelity", "stage1", "stage2",
    "evaluate", "table",
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


def test_the_gpus_of_an_asking_job_are_those_of_all_replicas_with_all_their_parts(checkout: WorkflowRun) -> None:
    serve = "{num_replicas: 3, flags: {vllm_tensor_parallel_size: 2}}"
    (checkout.directory / "parallel.yaml").write_text(f"evaluate: {{serve: {serve}}}")
    output = checkout.run("-n", "--configfile", "config.yaml", "parallel.yaml", "--", "results/eval/mmmu/graft.jsonl")
    assert "gres=gpu:6" in resources_of(output)["evaluate"]


def resources_of(dry_run_output: str) -> dict[str, str]:
    """What each rule in the plan asks of a cluster."""
    return dict(re.findall(r"^rule (\w+):(?:\n    .*)*?\n    resources: (.*)$", dry_run_output, re.MULTILINE))


def test_a_stage_on_several_nodes_is_one_program_that_slurm_gives_as_many_tasks(checkout: WorkflowRun) -> None:
    (checkout.directory / "nodes.yaml").write_text("stage2: {num_nodes: 2, num_processes_per_node: 4}")
    output = checkout.run("-n", "--configfile", "config.yaml", "nodes.yaml", "--", "results/stage2/metrics.json")
    stage1, stage2 = (resources_of(output)[stage].split(", ") for stage in ("stage1", "stage2"))
    assert {"nodes=2", "gres=gpu:4", "tasks=2", "tasks_per_gpu=0", "mpi=srun"} <= set(stage2)
    assert {"nodes=1", "gres=gpu:8"} <= set(stage1) and not any(each.startswith("mpi=") for each in stage1)


def command_of(dry_run_output: str, program: str) -> str:
    """The command line of a program in a plan with commands (-p)."""
    (line,) = [line for line in dry_run_output.splitlines() if f"scripts {program} --" in line]
    return line


def test_a_refit_is_fitted_grafted_and_gated_by_its_own_report_and_limit(checkout: WorkflowRun) -> None:
    (checkout.directory / "affine.yaml").write_text(
        "graft: {architecture: qwen2_5_vl, calibration: affine}\ncalibration: {max_kl_nats: 0.125}"
    )
    config = ("--configfile", "config.yaml", "affine.yaml")
    output = checkout.run("-n", "-p", *config, "--", "results/graft/fidelity.json")
    assert planned_rules(output) >= {"calibration", "graft", "fidelity"}
    gate = "--calibration results/calibration/calibration.json --max-kl-nats 0.125"
    assert gate in command_of(output, "graft.check_fidelity")
    assert "--refit results/calibration/q_k_refit.safetensors" in command_of(output, "graft.graft")
    assert "max_kl_nats" not in command_of(output, "graft.calibrate"), "another limit repeats no fit"
    inputs = dict(re.findall(r"^rule (graft|fidelity):\n    input: (.*)$", output, re.MULTILINE))
    assert "q_k_refit.safetensors" in inputs["graft"] and "calibration.json" in inputs["fidelity"]


def test_each_stage_starts_from_the_model_before_it(checkout: WorkflowRun) -> None:
    output = checkout.run("-n", "-p", "results/stage2/metrics.json")
    commands = [line for line in output.splitlines() if "scripts train.train --stage" in line]
    models = {re.search(r"--stage (\w+) --model-dir (\S+)", line).groups() for line in commands}  # type: ignore[union-attr]
    assert models == {("stage1", "results/graft"), ("stage2", "results/stage1/checkpoint")}


def test_without_a_refit_nothing_is_fitted_and_nothing_is_gated(checkout: WorkflowRun) -> None:
    output = checkout.run("-n", "-p", "results/graft/fidelity.json")
    assert "calibration" not in planned_rules(output)
    assert "--refit" not in output and "--max-kl-nats" not in output


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


def test_a_users_own_donors_are_made_by_no_rule(checkout: WorkflowRun, tmp_path: Path) -> None:
    """Also with the demo's configuration, whose rules make donors: of a directory that is given, nothing is an output."""
    donors = {role: {"kind": "local", "path": str(tmp_path / role)} for role in ("vl", "llm")}
    for role in donors:
        (tmp_path / role).mkdir()
        (tmp_path / role / "config.json").write_text("{}")
    (checkout.directory / "own.yaml").write_text(yaml.safe_dump({"donors": donors}))
    output = checkout.run("-n", "--configfile", "config/demo.yaml", "own.yaml")
    assert "donor" in planned_rules(output)
    assert not planned_rules(output) & {"demo_vision_donor", "demo_language_donor"}
    written = [line for line in output.splitlines() if line.strip().startswith("output:")]
    assert written and not any(str(tmp_path) in line for line in written)
