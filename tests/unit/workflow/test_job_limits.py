"""The walltime and the signal of a stage's jobs, from the profile of the cluster."""

from snakemake.resources import Resource

from scripts.workflow.job_limits import limits_of_jobs


def test_limits_are_those_of_the_profile_and_none_without_one() -> None:
    def not_yet(wildcards: object) -> str:
        raise AssertionError("a resource is evaluated for a job, and there is none")

    found = {
        "stage1": {
            "runtime": Resource("runtime", not_yet, raw="1440"),
            "slurm_extra": Resource("slurm_extra", not_yet, raw="'--signal=TERM@600 --open-mode=append'"),
        },
        "stage2": {"runtime": 90, "slurm_extra": "--signal=B:TERM@30"},
        "other": {"runtime": 5},
    }
    assert limits_of_jobs(found, ["stage1", "stage2", "stage3"]) == {"stage1": [1440, 600]}
    assert limits_of_jobs({}, ["stage1"]) == {}
