# A vision-language model from two donors: graft → stage 1 → stage 2 → evaluate → report.
# Read on in rules/, in the order of the includes; each rule calls one program of scripts/.
from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")


# The operating system for --software-deployment-method apptainer.
container: "docker://python:3.11-slim"


include: "rules/common.smk"
include: "rules/inputs.smk"
include: "rules/resources.smk"
include: "rules/environments.smk"
include: "rules/donors.smk"
include: "rules/data.smk"
include: "rules/questions.smk"
include: "rules/graft.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"
include: "rules/upload.smk"
include: "rules/prefetch.smk"
include: "rules/plan.smk"


if "demo" in config:

    include: "rules/demo.smk"


rule all:
    default_target: True
    input:
        [RUN.scores(benchmark) for benchmark in RUN.benchmarks],
        [RUN.result(f"eval/{benchmark}.disagreements.html") for benchmark in RUN.benchmarks],
        RUN.result("report.html"),
        # Both: a card that went with an older export is missed only if it is asked for by itself.
        [RUN.result(f"{stage}/checkpoint/README.md") for stage in STAGES],
        [RUN.result(f"{stage}/checkpoint.check.json") for stage in STAGES],
    localrule: True
