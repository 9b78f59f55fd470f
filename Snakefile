# A vision-language model from two donors: graft → stage 1 → stage 2 → evaluate → report.
# Read on in rules/, in the order of the includes; each rule calls one program of scripts/.
from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")


# The operating system for --software-deployment-method apptainer.
container: "docker://python:3.11-slim"


# A configuration is complete in itself: with --configfile nothing of config.yaml remains.
if not workflow.config_settings.configfiles:

    configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/paths.smk"
include: "rules/resources.smk"
include: "rules/environments.smk"
include: "rules/donors.smk"
include: "rules/data.smk"
include: "rules/graft.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"
include: "rules/upload.smk"
include: "rules/prefetch.smk"


rule all:
    default_target: True
    input:
        expand(result("eval/{benchmark}.csv"), benchmark=BENCHMARKS),
        expand(result("eval/{benchmark}.disagreements.html"), benchmark=BENCHMARKS),
        result("report.html"),
        # Both: a card that went with an older export is missed only if it is asked for by itself.
        expand(result("{stage}/checkpoint/README.md"), stage=STAGES),
        expand(result("{stage}/checkpoint.check.json"), stage=STAGES),
    localrule: True
