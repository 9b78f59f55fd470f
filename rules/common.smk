# What all rules use. The configuration is validated here, before anything is planned.
import json
import os
import sys

sys.path.insert(0, workflow.basedir)
from scripts.environments import paths as environment_paths
from scripts.questions.catalogue import listed_benchmarks, pictures_named_in
from scripts.workflow.configuration import validate
from scripts.common.errors import UserError
from scripts.workflow.failed_jobs import told
from scripts.common.gpus import may_have_gpus
from scripts.evaluate.model_names import base_of, control_of
from scripts.workflow.one_run import claim_directory, end_leftover_jobs
from scripts.workflow.program_files import program_files
from scripts.workflow.slurm_plugin import mend_the_plugin

try:
    validate(config, Path(workflow.basedir) / "config")
except UserError as error:
    raise WorkflowError(str(error))


onstart:
    if workflow.is_main_process:
        try:
            claim_directory(Path(".snakemake"))
            mend_the_plugin(workflow.executor_settings)
            end_leftover_jobs(Path.cwd())
        except UserError as error:
            raise WorkflowError(str(error))


onerror:
    if last_words := told("".join(Path(path).read_text() for path in log)):
        print(last_words, file=sys.stderr)


def program(name):
    """The program and the modules it imports: the inputs whose change reruns what it makes."""
    return program_files(Path("scripts") / f"{name}.py", Path())


def section(*keys):
    """One section of the configuration as JSON, so that a rule's params hold nothing but its own."""
    value = config
    for key in keys:
        value = value[key]
    return json.dumps(value, sort_keys=True)


def environment_dir(role):
    """Where an environment is."""
    return environment_paths.environment_dir(config["environments"], role)


def python_of(role):
    """The interpreter of an environment; `workflow` is the one that runs Snakemake itself."""
    return ".venv/bin/python" if role == "workflow" else f"{environment_dir(role)}/bin/python"


def environment(role):
    """The marker of a whole environment: another lock reruns what was made with it."""
    return f"{environment_dir(role)}.ok"
