"""The demo, end to end and for real: two donors, a graft, two stages, four evaluations, a table and a page."""

import csv
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from helpers.processes import LIMIT_S
from helpers.short_demo import SHORT_DEMO, sums_of
from helpers.workflow_run import WorkflowRun, planned_jobs, planned_rules
from scripts.upload.front_matter import read_front_matter

pytestmark = pytest.mark.slow
DEMO = ("--configfile", "config/demo.yaml")
# What the graft's config.json decides beside the graft: the files by which rows are checked.
AFTER_CONFIG = {"graft_config", "model_files", "check_dataset"}
# What follows every change of a score.
AFTER_SCORES = {"table", "disagreements", "report", "model_card", "check_checkpoint"}


def accuracies(csv_path: Path) -> dict[str, float]:
    with open(csv_path, newline="", encoding="utf-8") as file:
        return {row["model"]: float(row["accuracy"]) for row in csv.DictReader(file) if row["group"] == "overall"}


def test_the_stages_learn_to_see_and_the_controls_fall_to_chance(finished_demo: WorkflowRun) -> None:
    accuracy = accuracies(finished_demo.results / "eval/digits.csv")
    assert list(accuracy) == ["graft", "stage1", "stage2", "stage2-blind", "stage2-shuffled"]
    assert accuracy["stage1"] >= 0.80
    assert accuracy["stage2"] >= 0.95
    assert max(accuracy["stage2-shuffled"], accuracy["stage2-blind"]) <= 0.33


def test_the_comparison_says_that_stage_2_beats_its_controls_on_the_same_questions(finished_demo: WorkflowRun) -> None:
    with open(finished_demo.results / "eval/digits.comparison.csv", newline="", encoding="utf-8") as file:
        rows = {(row["model"], row["other"]): row for row in csv.DictReader(file)}
    for control in ("stage2-shuffled", "stage2-blind"):
        row = rows["stage2", control]
        assert int(row["num_model_only"]) > int(row["num_other_only"])
        assert float(row["mcnemar_p"]) < 1e-6 and float(row["ci95_high"]) < 0


def test_stage_1_changed_the_aligner_alone_and_stage_2_everything(finished_demo: WorkflowRun) -> None:
    changed = {
        stage: json.loads((finished_demo.results / stage / "metrics.json").read_text())
        for stage in ("stage1", "stage2")
    }
    total = changed["stage1"]["tensors_total"]
    assert changed["stage1"]["tensors_changed"] == {**dict.fromkeys(total, 0), "aligner": total["aligner"]}
    assert changed["stage2"]["tensors_changed"] == total


def test_the_graft_lost_nothing(finished_demo: WorkflowRun) -> None:
    assert json.loads((finished_demo.results / "graft/fidelity.json").read_text())["bit_equal"] is True


def test_the_report_needs_nothing_from_outside_itself(finished_demo: WorkflowRun) -> None:
    page = (finished_demo.results / "report.html").read_text(encoding="utf-8")
    for mark in ('src="http', "src='http", 'href="http', "url(http", "@import", "<script src"):
        assert mark not in page
    assert "stage2-shuffled" in page


def test_each_stages_checkpoint_has_a_card_and_can_be_uploaded(finished_demo: WorkflowRun) -> None:
    accuracy = accuracies(finished_demo.results / "eval/digits.csv")
    for stage in ("stage1", "stage2"):
        card = (finished_demo.results / stage / "checkpoint/README.md").read_text(encoding="utf-8")
        (result,) = read_front_matter(card)["model-index"][0]["results"]
        assert result["metrics"][0]["value"] == accuracy[stage]
        assert str(finished_demo.directory) not in card
        check = json.loads((finished_demo.results / stage / "checkpoint.check.json").read_text(encoding="utf-8"))
        assert check["code_from"] == "the checkpoint"
        assert check["num_results_in_card"] == 1


def test_a_card_that_was_lost_is_made_again_alone(finished_demo: WorkflowRun) -> None:
    """As after a stage that was exported again."""
    card_path = finished_demo.results / "stage2/checkpoint/README.md"
    kept_path = card_path.rename(finished_demo.results / "kept.md")
    try:
        jobs = planned_jobs(finished_demo.run("-n", *DEMO))
    finally:
        kept_path.rename(card_path)
    assert jobs == {"model_card stage=stage2", "check_checkpoint stage=stage2", "all"}


def test_a_second_run_has_nothing_to_do(finished_demo: WorkflowRun) -> None:
    assert planned_rules(finished_demo.run(*DEMO)) == set()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("evaluate: {vlmevalkit: {nproc: 3}}", {"evaluate", *AFTER_SCORES}),
        ("stage2: {flags: {learning_rate: 2.0e-3}}", {"stage2", "evaluate", *AFTER_SCORES}),
        ("report: {num_gallery_pictures: 3}", {"report"}),
        ("fidelity: {max_tokens: 64}", {"fidelity", "stage1", "stage2", "evaluate", *AFTER_SCORES}),
        (
            "graft: {aligner: keep}",
            {"graft", "fidelity", "stage1", "stage2", "evaluate", *AFTER_CONFIG, *AFTER_SCORES},
        ),
    ],
)
def test_a_changed_setting_reruns_only_what_depends_on_it(
    finished_demo: WorkflowRun, change: str, expected: set[str]
) -> None:
    (finished_demo.directory / "change.yaml").write_text(change)
    planned = planned_rules(finished_demo.run("-n", *DEMO, "change.yaml"))
    assert planned - {"all", "effective_config"} == expected


def test_stage_2s_learning_rate_leaves_stage_1_and_its_scores_alone(finished_demo: WorkflowRun) -> None:
    (finished_demo.directory / "change.yaml").write_text("stage2: {flags: {learning_rate: 2.0e-3}}")
    jobs = planned_jobs(finished_demo.run("-n", *DEMO, "change.yaml"))
    assert {job for job in jobs if job.startswith(("stage", "evaluate"))} == {
        "stage2 stage=stage2",
        "evaluate benchmark=digits, model=stage2",
        "evaluate benchmark=digits, model=stage2-blind",
        "evaluate benchmark=digits, model=stage2-shuffled",
    }


def test_a_comment_threads_or_memory_rerun_nothing(finished_demo: WorkflowRun) -> None:
    commented = finished_demo.directory / "config/commented.yaml"
    commented.write_text((finished_demo.directory / "config/demo.yaml").read_text() + "\n# a comment\n")
    resources = ("--set-threads", "evaluate=2", "stage2=2", "--set-resources", "stage2:mem_mb=9000", "graft:mem_mb=900")
    output = finished_demo.run("-n", "--configfile", str(commented), *resources)
    assert planned_rules(output) == set()


def test_each_result_says_with_which_settings_it_was_made(finished_demo: WorkflowRun) -> None:
    config = yaml.safe_load((finished_demo.directory / "config/demo.yaml").read_text(encoding="utf-8"))
    seed = config["seed"]
    saved = {
        path: json.loads((finished_demo.results / path).read_text(encoding="utf-8"))
        for path in ("config.json", "graft/settings.json", "eval/digits.json")
    }
    assert saved["config.json"] == config
    assert (saved["graft/settings.json"]["graft"], saved["graft/settings.json"]["seed"]) == (config["graft"], seed)
    for stage in ("stage1", "stage2"):
        settings_path = finished_demo.results / stage / "checkpoint/settings.json"
        assert json.loads(settings_path.read_text(encoding="utf-8")) == {"stage": stage, "seed": seed, **config[stage]}
    models = saved["eval/digits.json"]["models"]
    # How many servers there were, on how many nodes, and how long they could take to start: no answer depends on it.
    serve = {key: config["evaluate"]["serve"][key] for key in ("backend", "environment", "flags")}
    assert models.keys() == set(config["evaluate"]["models"])
    for model in models.values():
        assert (model["harness"], model["serve"], model["settings"], model["seeds"]) == (
            config["evaluate"]["backend"],
            serve,
            config["evaluate"][config["evaluate"]["backend"]],
            [seed],
        )


def test_environments_built_again_from_the_same_locks_rerun_nothing(finished_demo: WorkflowRun) -> None:
    link_path = finished_demo.directory / ".venvs"
    environments_dir = link_path.resolve()
    link_path.unlink()
    link_path.mkdir()
    try:
        for path in environments_dir.iterdir():
            if path.suffix == ".ok":
                shutil.copyfile(path, link_path / path.name)  # the same marker, with a new date
            else:
                (link_path / path.name).symlink_to(path)
        assert planned_rules(finished_demo.run("-n", *DEMO)) == set()
    finally:
        shutil.rmtree(link_path)
        link_path.symlink_to(environments_dir, target_is_directory=True)


def test_an_edited_program_reruns_what_it_makes(finished_demo: WorkflowRun) -> None:
    program_path = finished_demo.directory / "scripts/report/make_report.py"
    original = program_path.read_text()
    try:
        program_path.write_text(original + "\n# edited\n")
        assert planned_rules(finished_demo.run("-n", *DEMO)) - {"all"} == {"report"}
    finally:
        program_path.write_text(original)


@pytest.mark.full
def test_a_demo_killed_in_both_stages_ends_with_the_same_weights_and_table(finished_short_demo: WorkflowRun) -> None:
    checkout = finished_short_demo
    killed_dir = checkout.directory / "results/killed"
    killed = (*SHORT_DEMO, "--config", "results=results/killed")

    def has_checkpoint(stage: str) -> Callable[[], bool]:
        work_dir = checkout.directory / "work/results/killed" / stage
        return lambda: any(work_dir.glob("*/trainer/checkpoint-*/complete.json"))

    checkout.interrupted(has_checkpoint("stage1"), signal.SIGKILL, *killed)
    checkout.interrupted(has_checkpoint("stage2"), signal.SIGINT, *killed)
    checkout.run(*killed)
    resumes = [
        json.loads((killed_dir / stage / "metrics.json").read_text())["resumes"] for stage in ("stage1", "stage2")
    ]
    assert all(resumes), "a stage was not resumed, so the test did not test"
    assert sums_of(killed_dir) == sums_of(checkout.results) != {}


@pytest.mark.full
def test_a_training_that_outlives_its_snakemake_never_overwrites_a_later_runs_results(
    finished_short_demo: WorkflowRun,
) -> None:
    """Only Snakemake is killed, so that nobody ends its training; the later run has other settings and the same place."""
    checkout = finished_short_demo
    for num_steps in (900, 2):
        change = {"stage1": {"flags": {"max_steps": num_steps}}}
        (checkout.directory / f"{num_steps}.yaml").write_text(yaml.safe_dump(change))

    def trains(num_steps: int) -> tuple[str, ...]:
        return (target, *SHORT_DEMO, f"{num_steps}.yaml", "--config", "results=results/orphaned")

    target = "results/orphaned/stage1/metrics.json"
    work_dir = checkout.directory / "work/results/orphaned/stage1"
    left = checkout.orphaned(lambda: any(work_dir.glob("*/trainer/checkpoint-*/complete.json")), *trains(900))
    assert any("train.train" in name for name in map(" ".join, left.values())), (
        "no training was left, so the test did not test"
    )
    checkout.run(*trains(2))
    _, alive = psutil.wait_procs(left, timeout=LIMIT_S)
    assert alive == []
    assert json.loads((checkout.directory / target).read_text())["num_steps"] == 2
    assert planned_rules(checkout.run("-n", *trains(2))) == set()
