"""Slurm's answers are turned into states that Snakemake's plugin understands, at the interval that was asked for."""

import asyncio
import logging
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import snakemake_executor_plugin_slurm as plugin

from scripts.common.errors import UserError
from scripts.train.slurm_commands import ask
from scripts.workflow.slurm_plugin import (
    JobStates,
    LimitedCommands,
    PatientSubmission,
    cancel_all_jobs,
    cancel_hopeless_jobs,
    forget_options_of_the_shell,
    gpu_words,
    patch_slurm_plugin,
    require_plain_words,
    status_command,
    with_known_states,
    without_limits_of_the_shell,
    without_vain_retries,
)

LOGGER = logging.getLogger(__name__)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Stands in for a command of Slurm's by a line of shell. The real ones: tests/cluster."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def write(command: str, line: str) -> None:
        (tmp_path / command).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / command).chmod(0o755)

    return write


def test_a_cancelled_job_is_cancelled_whoever_did_it() -> None:
    states = {"1": "CANCELLED by 1000", "2": "COMPLETED", "3": "OUT_OF_MEMORY"}
    assert JobStates().understood(states, is_whole=True) == {"1": "CANCELLED", "2": "COMPLETED", "3": "OUT_OF_MEMORY"}


def test_every_end_that_slurm_knows_is_one_that_the_plugin_knows() -> None:
    ends = (
        "BOOT_FAIL", "CANCELLED by 7", "DEADLINE", "FAILED", "LAUNCH_FAILED", "OUT_OF_MEMORY", "RECONFIG_FAIL", "REVOKED",
        "TIMEOUT",
    )  # fmt: skip
    known = {each for each in plugin.Executor.check_active_jobs.__code__.co_consts if isinstance(each, tuple)}
    fail_stati = next(each for each in known if "BOOT_FAIL" in each)
    assert set(JobStates().understood(dict(enumerate(ends)), is_whole=True).values()) <= set(fail_stati)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL"])
def test_a_job_is_left_to_slurm_for_one_look_and_given_up_when_it_did_not_come_back(
    slurm: Callable[[str, str], None], tmp_path: Path, state: str
) -> None:
    slurm("scancel", f'echo "$@" >> {tmp_path}/cancelled')
    known = JobStates()
    assert known.understood({"1": state, "2": state}, is_whole=True) == {"1": state, "2": state}
    assert known.understood({"1": state, "2": "PENDING"}, is_whole=True) == {"1": "CANCELLED", "2": "PENDING"}
    assert (tmp_path / "cancelled").read_text() == "1\n"
    assert known.understood({"1": "CANCELLED", "2": state}, is_whole=True)["2"] == state, (
        "it had come back, and it happened anew"
    )


def test_a_job_that_slurm_has_forgotten_is_not_waited_for() -> None:
    known = JobStates()
    known.understood({"1": "RUNNING", "2": "RUNNING"}, is_whole=True)
    assert known.understood({"2": "RUNNING"}, is_whole=True) == {"1": "CANCELLED", "2": "RUNNING"}
    assert known.understood({}, is_whole=False) == {}, "sacct may lack a job for a while"


def test_the_plugins_own_question_is_asked_and_its_answer_corrected() -> None:
    query = with_known_states(plugin.query_job_status)
    states, duration_s = asyncio.run(query("echo '7|CANCELLED by 0'", LOGGER))
    assert states == {"7": "CANCELLED"}
    assert duration_s is not None


def test_where_slurm_does_not_answer_nothing_is_known_of_any_job_and_that_is_logged_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    query = with_known_states(plugin.query_job_status)
    assert asyncio.run(query("echo '7|RUNNING'", LOGGER))[0] == {"7": "RUNNING"}
    for _ in range(2):
        assert asyncio.run(query("false", LOGGER)) == ({}, 0.0)
    assert capsys.readouterr().err.count("Slurm does not report") == 1
    assert asyncio.run(query("echo '7|RUNNING'", LOGGER))[0] == {"7": "RUNNING"}


def test_the_plugin_looks_at_its_jobs_by_what_is_corrected() -> None:
    names = plugin.Executor.check_active_jobs.__code__.co_names
    assert {"query_job_status", "next_seconds_between_status_checks", "get_min_job_age"} <= set(names)


def test_sacct_is_asked_where_it_answers(slurm: Callable[[str, str], None]) -> None:
    slurm("sacct", "true")
    assert status_command("sacct", 40, 2) == "sacct"


def test_squeue_is_asked_where_there_is_no_accounting_and_that_is_logged(
    slurm: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    slurm("sacct", "echo Slurm accounting storage is disabled >&2; exit 1")
    assert status_command("sacct", 40, 300) == "squeue"
    assert status_command("sacct", 40, 0) == "squeue", "0 is never"
    assert status_command("sacct", 40, None) == "squeue", "the first submission reports that no cluster answers"
    assert "sacct does not answer (Slurm accounting storage is disabled); squeue" in capsys.readouterr().err


def test_a_cluster_that_forgets_jobs_too_soon_is_refused(slurm: Callable[[str, str], None]) -> None:
    slurm("sacct", "exit 1")
    for asked_for in ("sacct", "squeue"):
        with pytest.raises(
            UserError, match=r"forgets jobs 100 s after .*, at least 3 intervals of 40 s .* SLURM_POLL_S"
        ):
            status_command(asked_for, 40, 100)


def test_where_slurm_is_not_installed_squeue_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert status_command("sacct", 40, None) == "squeue"


class Executor:
    """What of the plugin's executor is touched."""

    def __init__(self) -> None:
        settings = SimpleNamespace(init_seconds_before_status_checks=40)
        self.workflow = SimpleNamespace(executor_settings=settings)
        self.next_seconds_between_status_checks = 40
        self.run_uuid = "run"
        self._failed_nodes = {"given-by-the-user"}
        self.errors: dict[str, str] = {}

    def report_job_error(self, job: Any, msg: str) -> None:
        self.errors[job.external_jobid] = msg


async def no_check(self: Any, active_jobs: list[Any]) -> AsyncIterator[Any]:
    """A plugin that finds all jobs running."""
    for job in active_jobs:
        yield job
    self._failed_nodes.add("node[1-2]")
    self.next_seconds_between_status_checks += 10


def run_look(looks: Any, executor: Executor, *job_ids: str) -> list[Any]:
    async def all_jobs() -> list[Any]:
        jobs = [
            SimpleNamespace(external_jobid=i, job=SimpleNamespace(name="stage1", attempt=1, restart_times=10))
            for i in job_ids
        ]
        left = [job.external_jobid async for job in looks(executor, jobs)]
        return [left, {job.external_jobid: job.job.attempt for job in jobs}]

    return asyncio.run(all_jobs())


def look(executor: Executor, *job_ids: str) -> list[Any]:
    """One look of an executor's at these jobs; gives those left, and the attempt of each."""
    return run_look(cancel_hopeless_jobs(no_check), executor, *job_ids)


def test_the_interval_between_looks_stays_the_one_that_was_asked_for(slurm: Callable[[str, str], None]) -> None:
    slurm("squeue", "exit 1")
    executor = Executor()
    left, _ = look(executor, "1")
    assert left == ["1"]
    assert executor._failed_nodes == {"given-by-the-user"}, "which nodes are down is for Slurm to know"
    assert executor.next_seconds_between_status_checks == 40


def test_a_job_that_will_never_start_is_given_up_with_slurms_reason_and_not_submitted_again(
    slurm: Callable[[str, str], None], tmp_path: Path
) -> None:
    slurm("squeue", "echo '1|1|1-00:00:00|gpu|PartitionTimeLimit'; echo '2|1|10:00|gpu|Priority'")
    slurm("scancel", f'echo "$@" >> {tmp_path}/cancelled')
    executor = Executor()
    left, attempts = look(executor, "1", "2", "3")
    assert left == ["2", "3"]
    assert "will never start it: PartitionTimeLimit." in executor.errors.pop("1")
    assert not executor.errors
    assert attempts == {"1": 11, "2": 1, "3": 1}, "Snakemake submits again while restart_times > attempt - 1"
    assert (tmp_path / "cancelled").read_text() == "1\n"


@pytest.mark.parametrize("reason", ["JobHeldUser", "Resources", "QOSMaxGRESPerUser", "Dependency"])
def test_a_job_that_a_person_or_time_can_let_go_on_is_waited_for(
    slurm: Callable[[str, str], None], tmp_path: Path, reason: str
) -> None:
    slurm("squeue", f"echo '1|1|10:00|gpu|{reason}'")
    slurm("scancel", f'echo "$@" >> {tmp_path}/cancelled')
    executor = Executor()
    left, attempts = look(executor, "1")
    assert (left, attempts, executor.errors) == (["1"], {"1": 1}, {})
    assert not (tmp_path / "cancelled").exists()


OUT_OF_MEMORY = "slurmstepd-node1: error: Detected 1 oom-kill event(s) in StepId=11.0. Some of your processes ...\n"


@pytest.mark.parametrize(
    ("rule", "outputs", "expected"),
    [
        ("evaluate", [OUT_OF_MEMORY, OUT_OF_MEMORY], [True, False]),
        ("evaluate", ["error: a node failed\n", OUT_OF_MEMORY], [True, True]),
        ("stage1", [OUT_OF_MEMORY, OUT_OF_MEMORY], [True, True]),
        (
            "stage1",
            ["error: stage1: the last 2 starts saved no checkpoint beyond step 0; not starting again; x\n"],
            [False],
        ),
    ],
)
def test_a_job_is_not_submitted_again_in_vain(
    tmp_path: Path, rule: str, outputs: list[str], expected: list[bool]
) -> None:
    is_submitted_again = []

    def report(executor: object, job_info: SimpleNamespace, msg: str, aux_logs: list[str]) -> None:
        is_submitted_again.append(job_info.job.attempt <= job_info.job.restart_times)

    job = SimpleNamespace(name=rule, jobid=3, attempt=1, restart_times=10)
    report_job_error = without_vain_retries(report)
    for number, output in enumerate(outputs):
        path = tmp_path / f"{number}.log"
        path.write_text(output)
        report_job_error(Executor(), SimpleNamespace(job=job, aux={"slurm_logfile": path}), msg="failed", aux_logs=[])
    assert is_submitted_again == expected


def test_a_cancelled_run_leaves_no_job_also_of_those_whose_states_are_being_asked(
    slurm: Callable[[str, str], None], tmp_path: Path
) -> None:
    """While Snakemake asks, its list of jobs is empty; here one of three is in it."""
    slurm("squeue", 'echo "$@" | grep -q -- --name=run && printf "1\\n2\\n3\\n"')
    slurm("scancel", f'echo "$@" >> {tmp_path}/cancelled')
    by_the_plugin: list[str] = []
    cancel = cancel_all_jobs(lambda executor, jobs: by_the_plugin.extend(job.external_jobid for job in jobs))
    cancel(Executor(), [SimpleNamespace(external_jobid="2")])
    assert (by_the_plugin, (tmp_path / "cancelled").read_text()) == (["2"], "1 3\n")


def test_nothing_more_is_cancelled_where_nothing_is_left(slurm: Callable[[str, str], None], tmp_path: Path) -> None:
    slurm("squeue", "echo 2")
    slurm("scancel", f"touch {tmp_path}/cancelled")
    cancel_all_jobs(lambda executor, jobs: None)(Executor(), [SimpleNamespace(external_jobid="2")])
    assert not (tmp_path / "cancelled").exists()


def test_each_reason_for_which_a_job_waits_is_told_once(
    slurm: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    looks = cancel_hopeless_jobs(no_check)
    executor = Executor()
    for reason in (
        "Priority",
        "Priority",
        "QOSMaxGRESPerUser",
        "ReqNodeNotAvail, UnavailableNodes:n1",
        "Priority",
    ):
        slurm("squeue", f"echo '1|1|10:00|gpu|{reason}'")
        run_look(looks, executor, "1")
    assert capsys.readouterr().err.splitlines() == [
        "stage1 (Slurm job 1) waits: Priority, others are before it",
        "stage1 (Slurm job 1) waits: QOSMaxGRESPerUser, a limit is reached",
        "stage1 (Slurm job 1) waits: ReqNodeNotAvail, UnavailableNodes:n1, nodes that it needs are down, drained or reserved",
    ]


@pytest.mark.parametrize("reason", ["launch failed requeued held", "JobHeldAdmin"])
def test_a_job_that_nobody_may_ever_let_go_is_submitted_again_and_its_node_named(
    slurm: Callable[[str, str], None], tmp_path: Path, reason: str
) -> None:
    slurm("squeue", f"echo '1|1|10:00|gpu|{reason}'")
    slurm("scancel", f'echo "$@" >> {tmp_path}/cancelled')
    slurm("sacct", "printf 'node7\\nNone assigned\\n'")
    executor = Executor()
    left, attempts = look(executor, "1", "2")
    assert (left, attempts) == (["2"], {"1": 1, "2": 1})
    assert (
        reason in executor.errors["1"] and "submitted again" in executor.errors["1"] and "node7" in executor.errors["1"]
    )
    assert (tmp_path / "cancelled").read_text() == "1\n"


class Job:
    """What of a job is touched by a submission."""

    name = "stage1"

    def __init__(self, **resources: Any) -> None:
        self.resources = resources


class Submitter:
    """A plugin whose sbatch gives these answers in turn; None is a success."""

    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)
        self.reports: list[str] = []
        self.patient = PatientSubmission(self.submit, lambda executor, job_info, msg: self.reports.append(msg))

    def submit(self, executor: Any, job: Any) -> None:
        if (refusal := self.answers.pop(0)) is not None:
            self.patient.report_error(executor, None, f"SLURM sbatch failed. The error message was '{refusal}'.")

    def run(self) -> None:
        self.patient.run_job(None, Job())


LIMIT = "*** Welcome ***\nsbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates"
AWAY = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
WRONG = "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified"


def test_a_submission_that_is_refused_for_the_moment_is_tried_again_with_growing_pauses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    submitter = Submitter(LIMIT, AWAY, LIMIT, None)
    pauses: list[float] = []
    monkeypatch.setattr(submitter.patient.is_ended, "wait", pauses.append)
    submitter.run()
    assert (pauses, submitter.reports, submitter.answers) == ([2.0, 4.0, 8.0], [], [])
    first = capsys.readouterr().err.splitlines()[0]
    assert "Welcome" in first and "QOSMaxSubmitJobPerUserLimit" in first and first.endswith("Trying again in 2.0 s.")


def test_a_submission_that_is_refused_for_good_or_for_too_long_or_at_the_end_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submitter = Submitter(WRONG)
    submitter.run()
    assert len(submitter.reports) == 1 and WRONG in submitter.reports[0]
    submitter = Submitter(*[LIMIT] * 1000)
    monkeypatch.setattr(submitter.patient.is_ended, "wait", lambda pause_s: None)
    submitter.run()
    assert len(submitter.reports) == 1 and 100 < 1000 - len(submitter.answers) < 200, "a day of ten minutes each"
    submitter = Submitter(LIMIT, LIMIT)
    submitter.patient.is_ended.set()
    submitter.run()
    assert len(submitter.reports) == 1 and len(submitter.answers) == 1
    submitter.patient.report_error(None, None, "from elsewhere")
    assert submitter.reports[-1] == "from elsewhere"


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, ""),
        ({"gres": ""}, ""),
        ({"gres": "gpu:8"}, " --gres=gpu:8"),
        ({"gres": "gpu:8", "slurm_gpu_type": "nvidia_a100-sxm4-80gb"}, " --gres=gpu:nvidia_a100-sxm4-80gb:8"),
        ({"gres": "gpu:8", "slurm_gpu_option": "gpus-per-node"}, " --gpus-per-node=8"),
        ({"gres": "gpu:8", "slurm_gpu_option": "gpus-per-node", "slurm_gpu_type": "a100"}, " --gpus-per-node=a100:8"),
        ({"gres": "gpu:8", "slurm_gpu_option": "none"}, ""),
    ],
)
def test_gpus_are_asked_for_as_the_site_names_them(resources: dict[str, str], expected: str) -> None:
    assert gpu_words(Job(**resources)) == expected


@pytest.mark.parametrize(
    ("variable", "resources"),
    [
        ("SLURM_GPU_TYPE", {"gres": "gpu:8", "slurm_gpu_type": "a100 --exclusive"}),
        ("SLURM_GPU_OPTION", {"gres": "gpu:8", "slurm_gpu_option": "gpus"}),
    ],
)
def test_words_about_gpus_that_are_none_are_refused_by_their_variable(variable: str, resources: dict[str, str]) -> None:
    with pytest.raises(UserError, match=f"^{variable}: "):
        gpu_words(Job(**resources))


def test_limits_of_the_login_shell_are_not_passed_on() -> None:
    assert without_limits_of_the_shell(lambda job: f"sbatch {job}")("x") == "sbatch x --propagate=NONE"


def test_options_that_the_login_shell_has_for_sbatch_do_not_change_our_jobs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = {
        "SBATCH_ARRAY_INX": "0-9",
        "SBATCH_ACCOUNT": "lab",
        "SRUN_CPUS_PER_TASK": "1",
        "SLURM_EXPORT_ENV": "NONE",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    forget_options_of_the_shell()
    assert {name for name in variables if name in os.environ} == {"SBATCH_ACCOUNT"}
    assert "SBATCH_ARRAY_INX, SLURM_EXPORT_ENV, SRUN_CPUS_PER_TASK" in capsys.readouterr().err
    monkeypatch.setenv("SLURM_CLUSTERS", "other")
    with pytest.raises(UserError, match=r"SLURM_CLUSTERS: 'other' found; .* not supported"):
        forget_options_of_the_shell()


def test_a_command_of_the_plugins_that_hangs_counts_as_failed_and_is_not_tried_ten_times(
    slurm: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    slurm("sacct", f"echo x >> {tmp_path}/asked; exec sleep 3600")
    slurm("sinfo", "echo gpu")
    limited = LimitedCommands()
    for step in range(10):
        with pytest.raises(subprocess.CalledProcessError) as caught:
            limited.check_output(f"sacct -j 7.{step}", shell=True, text=True, stderr=subprocess.PIPE, timeout=0.5)
        assert caught.value.stderr.strip() == "sacct: no answer within 60 s"
    assert limited.check_output(["sinfo"], text=True) == "gpu\n"
    assert (tmp_path / "asked").read_text() == "x\n"
    assert capsys.readouterr().err == "sacct: no answer within 60 s; going on without its answer\n"
    assert limited.PIPE == subprocess.PIPE


def test_what_is_corrected_is_where_the_plugin_looks_for_it() -> None:
    """Of version 2.8.0: another one must be read again."""
    assert version("snakemake-executor-plugin-slurm") == "2.8.0"
    submission = plugin.Executor.run_job.__code__.co_names
    assert {"get_submit_command", "set_gres_string", "_report_job_error_threadsafe", "subprocess"} <= set(submission)
    assert {"validate_account", "get_account"} <= set(plugin.Executor.get_account_arg.__code__.co_names)


def test_every_correction_is_put_in_place_for_the_executor_of_slurm_and_for_no_other(
    slurm: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm("sacct", "true")
    monkeypatch.setenv("SBATCH_ARRAY_INX", "0-9")
    names = (
        "get_min_job_age", "query_job_status", "subprocess", "validate_account", "get_account", "set_gres_string",
        "get_submit_command",
    )  # fmt: skip
    methods = ("run_job", "_report_job_error_threadsafe", "check_active_jobs", "cancel_jobs")
    places = [(plugin, name) for name in names] + [(plugin.Executor, name) for name in methods]
    before = [getattr(owner, name) for owner, name in places]
    for (owner, name), value in zip(places, before, strict=True):
        monkeypatch.setattr(owner, name, value)  # so that each is as it was after this test
    patch_slurm_plugin(SimpleNamespace())
    assert [getattr(owner, name) for owner, name in places] == before
    assert "SBATCH_ARRAY_INX" in os.environ
    settings = plugin.ExecutorSettings(status_command="sacct")
    patch_slurm_plugin(settings)
    same = [name for (owner, name), value in zip(places, before, strict=True) if getattr(owner, name) is value]
    assert same == []
    assert settings.status_command == "sacct"
    assert "SBATCH_ARRAY_INX" not in os.environ
    assert (plugin.validate_account("lab", LOGGER), plugin.get_account(LOGGER)) == ("lab", None)
    assert plugin.set_gres_string is gpu_words


def test_a_sacct_that_hangs_does_not_hang_the_start(
    slurm: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm("sacct", "exec sleep 3600")
    monkeypatch.setattr("scripts.workflow.slurm_plugin.ask", partial(ask, limit_s=0.2))
    assert status_command("sacct", 40, 300) == "squeue"


@pytest.mark.parametrize(
    "word", ["results=$(touch x)", "/data/a`b`", 'results="x"', "it's.yaml", "a\\b", "a!b", "a\nb"]
)
def test_a_word_that_a_shell_on_the_cluster_would_read_is_refused(word: str) -> None:
    with pytest.raises(UserError, match="which a shell on the cluster would read"):
        require_plain_words(["seed=1", Path("/home/me/my project"), word])


def test_other_words_reach_a_job_as_they_are() -> None:
    require_plain_words(["seed=1", "results=results/ä", Path("/home/me/my project/{x}.yaml"), "a={b: [1, 2]}"])
