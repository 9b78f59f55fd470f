# What all rules use. The configuration is validated here, before anything is planned.
import json
import os
import re
import shlex
import sys

# Only while our package `scripts` is imported: the workflow may be used from a directory that has one of its own.
_modules_of_caller = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "scripts"}
sys.path.insert(0, str(Path(workflow.current_basedir).parent))

from scripts.common.errors import UserError
from scripts.common.input_files import file_fault
from scripts.train.gpus import may_have_gpus
from scripts.common.ownership import announce_run, forget_run
from scripts.common.root import ROOT
from scripts.data.source_text import file_of_source
from scripts.environments.marker import is_outdated
from scripts.environments.surroundings import check_packages
from scripts.evaluate.model_names import base_of
from scripts.questions.catalogue import pictures_named_in
from scripts.workflow.config_files import read_files
from scripts.workflow.configuration import validate
from scripts.workflow.console import closing_line, shorten_inputs
from scripts.workflow.failed_jobs import failure_summary
from scripts.workflow.job_limits import limits_of_jobs
from scripts.workflow.layout import DIGITS_DIR, STAGES, Layout, before, shipped, stages_up_to, text_path
from scripts.workflow.missing_files import require_users_files
from scripts.workflow.one_run import claim_directory, end_leftover_jobs
from scripts.workflow.paths import path_fault
from scripts.workflow.program_files import program_files
from scripts.workflow.slurm_plugin import patch_slurm_plugin, require_plain_words
from scripts.workflow.steps import shell_command
from scripts.workflow.temporary_files import leave_full_directory

sys.path.pop(0)
for _name in [name for name in sys.modules if name.partition(".")[0] == "scripts"]:
    del sys.modules[_name]
sys.modules.update(_modules_of_caller)

# A configuration is complete in itself: with --configfile nothing of config.yaml remains. What Snakemake has read is replaced:
# it drops repeated keys, and merges sections that exclude each other. Another workflow that uses this one gives its own.
faults_of_files = []
if not workflow.modifier.skip_configfile:
    _read, faults_of_files = read_files(
        workflow.config_settings.configfiles or [Path("config.yaml")], workflow.config_settings.config_args or []
    )
    config.clear()
    config.update(_read)

try:
    check_packages()
    validate(config, ROOT / "config", faults_of_files)
    if not workflow.modifier.skip_configfile:  # rules of another workflow may make them
        require_users_files(config)
except UserError as error:
    raise WorkflowError(str(error))

leave_full_directory()
shorten_inputs(logger.handlers)

# What a job of Slurm inherits from the run that submitted it.
forget_run()

# Where everything lies.
RUN = Layout(config)
MODEL_PACKAGE = sorted(str(path) for path in Path(shipped("model/qwen2_5_vl_qwen3")).glob("*.py"))


onstart:
    if workflow.is_main_process:
        try:
            if not workflow.local_exec:
                require_plain_words(
                    [
                        Path.cwd(),
                        ROOT,
                        *workflow.config_settings.configfiles,
                        *(workflow.config_settings.config_args or []),
                    ]
                )
            claim_directory(Path(".snakemake/vlgraft.lock"))
            claim_directory(Path(RUN.result(".vlgraft.lock")))
            announce_run()
            patch_slurm_plugin(workflow.executor_settings)
            end_leftover_jobs(Path.cwd())
        except UserError as error:
            raise WorkflowError(str(error))


onerror:
    if summary := failure_summary("".join(Path(path).read_text() for path in log)):
        print(summary, file=sys.stderr)


onsuccess:
    if line := closing_line("".join(Path(path).read_text() for path in log), RUN.report):
        print(line, file=sys.stderr)


def program(name):
    """The program `subject.program` and the modules it imports: the inputs whose change reruns what it makes."""
    return program_files(Path(shipped(f"scripts/{name.replace('.', '/')}.py")), Path(shipped("")))


def run(name):
    """A rule's command, from its wildcards; a function, because settings may hold braces."""
    return lambda wildcards: shell_command(RUN, name, **wildcards)


def build(program_name):
    """A command of scripts/environments; rules append their options. A function, for the same reason."""
    return lambda wildcards: shlex.join([RUN.python("workflow"), shipped("scripts"), program_name])
