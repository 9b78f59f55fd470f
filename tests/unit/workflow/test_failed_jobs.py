"""The summary of failed jobs at the end of a run."""

from pathlib import Path

from scripts.workflow.failed_jobs import failure_summary, reason_in

# As Snakemake 9.27.1 with its Slurm plugin 2.8.0 writes it, shortened.
WORKFLOW_LOG = """\
Job 13 has been submitted with SLURM jobid 6 (log: {directory}/6.log).
[Wed Nov 25 12:48:43 2026]
Error in rule stage1:
    message: SLURM-job '6' failed, SLURM status is: 'FAILED'.
    jobid: 13
    output: results/demo/stage1/checkpoint
    shell:
        python scripts train.train
    external_jobid: 6

Trying to restart job 13.
Job 13 has been submitted with SLURM jobid 7 (log: {directory}/7.log).
Error in rule stage1:
    jobid: 13
    external_jobid: 7
"""
JOB_OUTPUT = """\
stage1: hashing model and training set
error: stage1: ms-swift ended with exit status 1: out of memory
  the last line of ms-swift
  all output: logs/stage1.log
[Wed Nov 25 12:48:40 2026]
Error in rule stage1:
    jobid: 0
srun: error: node1: task 0: Exited with exit code 1
"""


def test_the_last_submission_of_a_rule_is_named_with_its_error_and_its_log(tmp_path: Path) -> None:
    (tmp_path / "6.log").write_text("error: an earlier one\n")
    (tmp_path / "7.log").write_text(JOB_OUTPUT)
    assert failure_summary(WORKFLOW_LOG.format(directory=tmp_path)) == "\n".join(
        [
            "stage1 (Slurm job 7) failed:",
            "  error: stage1: ms-swift ended with exit status 1: out of memory",
            "    the last line of ms-swift",
            "    all output: logs/stage1.log",
            f"  whole output: {tmp_path}/7.log",
        ]
    )


def test_each_failed_job_of_a_rule_is_named_and_one_that_a_later_submission_finished_is_not(tmp_path: Path) -> None:
    log = "".join(
        f"Job {job} has been submitted with SLURM jobid {slurm_job} (log: {tmp_path}/{slurm_job}.log).\n"
        f"Error in rule evaluate:\n    jobid: {job}\n    external_jobid: {slurm_job}\n"
        for job, slurm_job in ((3, 20), (4, 21), (5, 22))
    )
    for slurm_job in (20, 21, 22):
        (tmp_path / f"{slurm_job}.log").write_text(f"error: that of {slurm_job}\n")
    text = failure_summary(
        log + "Job 4 has been submitted with SLURM jobid 23 (log: x).\nFinished jobid: 4 (Rule: evaluate)\n"
    )
    assert [word for word in ("that of 20", "that of 21", "that of 22") if word in text] == ["that of 20", "that of 22"]


def test_a_job_without_an_error_of_ours_is_named_by_its_last_lines() -> None:
    output = "training, step 5/60\nslurmstepd: error: *** JOB 6 ON node1 CANCELLED ***\n\nError in rule stage1:\n    jobid: 0\n"
    assert reason_in(output) == ["training, step 5/60", "slurmstepd: error: *** JOB 6 ON node1 CANCELLED ***"]


def test_output_that_is_gone_is_reported(tmp_path: Path) -> None:
    assert "its output cannot be read (No such file or directory)" in failure_summary(
        WORKFLOW_LOG.format(directory=tmp_path)
    )


def test_a_refused_or_given_up_job_is_named_by_slurms_reason_and_not_by_an_old_log(tmp_path: Path) -> None:
    (tmp_path / "stage1.log").write_text("error: of last week\n")
    log = (
        "Error in rule stage1:\n    message: SLURM sbatch failed. The error message was 'invalid partition: x'\n    jobid: 1\n"
        f"    log: {tmp_path}/stage1.log (check log file(s) for error details)\n"
        f"Job 2 has been submitted with SLURM jobid 9 (log: {tmp_path}/9.log).\n"
        "Error in rule stage2:\n    message: Slurm accepted job '9' but will never start it: PartitionTimeLimit.\n    jobid: 2\n"
        f"    log: {tmp_path}/stage1.log (check log file(s) for error details)\n    external_jobid: 9\n"
    )
    text = failure_summary(log)
    assert "invalid partition: x" in text
    assert "PartitionTimeLimit" in text
    assert "last week" not in text


def test_the_whole_answer_of_sbatch_is_shown_whose_first_lines_are_often_a_banner() -> None:
    log = (
        "Error in rule stage1:\n    message: SLURM sbatch failed. The error message was '*** Welcome to the cluster ***\n"
        "*** Maintenance on Monday ***\n\nsbatch: error: You need to name a project\n"
        "sbatch: error: Batch job submission failed'.\n"
        "    sbatch call:\n        sbatch --parsable --job-name x\n    jobid: 1\n    output: results/x\n"
        "    log: logs/stage1.log (check log file(s) for error details)\n[Mon Nov 30 12:00:00 2026]\nTrying to restart job 1.\n"
    )
    assert failure_summary(log).splitlines() == [
        "stage1 failed:",
        "  SLURM sbatch failed. The error message was '*** Welcome to the cluster ***",
        "  *** Maintenance on Monday ***",
        "  sbatch: error: You need to name a project",
        "  sbatch: error: Batch job submission failed'.",
    ]


def test_a_local_job_is_named_by_its_log(tmp_path: Path) -> None:
    log_path = tmp_path / "image.log"
    log_path.write_text("+ apptainer build\nerror: apptainer: not found; load its module\n")
    log = f"Error in rule image:\n    jobid: 2\n    log: {log_path} (check log file(s) for error details)\n"
    assert (
        failure_summary(log)
        == f"image failed:\n  error: apptainer: not found; load its module\n  whole output: {log_path}"
    )
    log_path.write_text("what ms-swift printed\n")
    assert failure_summary(log) == ""


def test_a_run_without_cluster_jobs_has_nothing_to_tell() -> None:
    assert failure_summary("Error in rule table:\n    jobid: 1\n") == ""


def test_a_step_whose_earlier_starts_ran_out_of_memory_is_named_with_the_variable_to_raise(tmp_path: Path) -> None:
    """As a Slurm 22.05 with task/cgroup has it: state FAILED, and the last start refused to try once more."""
    (tmp_path / "6.log").write_text(
        "error: stage1: ms-swift ended with signal 9\n"
        "slurmstepd-node1: error: Detected 1 oom-kill event(s) in StepId=6.0. Some of your processes may have been killed by the "
        "cgroup out-of-memory handler.\nsrun: error: node1: task 0: Out Of Memory\n"
    )
    (tmp_path / "7.log").write_text("error: stage1: the last 2 starts saved no checkpoint\n")
    text = failure_summary(WORKFLOW_LOG.format(directory=tmp_path))
    assert "memory ran out, Slurm says of job 6; raise SLURM_MEM_MB_TRAIN, then give the same command again" in text
    assert "error: stage1: the last 2 starts saved no checkpoint" in text


def test_a_step_whose_files_do_not_appear_is_named_with_the_option_to_wait_longer() -> None:
    log = (
        'MissingOutputException in rule fidelity in file "/x/rules/graft.smk", line 66:\n'
        "Job 0 completed successfully, but some output files are missing. Missing files after 60 seconds.\n"
    )
    assert failure_summary(log).startswith("fidelity failed:\n  its job ended well")
    assert "--latency-wait" in failure_summary(log)
    assert failure_summary(log + "Finished jobid: 0 (Rule: fidelity)\n") == ""
