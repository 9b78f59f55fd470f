# Stage 1 trains the aligner, stage 2 everything; both by `swift sft` through one launcher.
# The checkpoints of a run lie in WORK and survive a failure; the exported checkpoint is declared, and comes last.
MODEL_PACKAGE = sorted(str(path) for path in Path("model/qwen2_5_vl_qwen3").glob("*.py"))


def before(stage):
    """What a stage starts from: the file that changes with the weights, beside or above their directory."""
    return LEDGER if stage == "stage1" else RESULTS + "/stage1/metrics.json"


def checkpoint_dir(model):
    """Where a model of the table lies."""
    if model == "parent":
        return donor_dir("vl")
    return GRAFT if model == "graft" else f"{RESULTS}/{model}/checkpoint"


rule train:
    input:
        MODEL_PACKAGE,
        script=program("train"),
        env=environment("train"),
        model=lambda wildcards: before(wildcards.stage),
        # A gate: a graft that lost something is not trained. A repeated proof only exports again what WORK holds.
        fidelity=GRAFT + "/fidelity.json",
        dataset=RESULTS + "/data/{stage}.jsonl",
        check=RESULTS + "/data/{stage}.check.json",
    output:
        directory(RESULTS + "/{stage}/checkpoint"),
        RESULTS + "/{stage}/metrics.json",
    log:
        f"logs/{RESULTS}/{{stage}}.log",
    threads: 1
    params:
        model_dir=lambda wildcards: checkpoint_dir("graft" if wildcards.stage == "stage1" else "stage1"),
        settings=lambda wildcards: section(wildcards.stage),
        seed=config["seed"],
        work_dir=lambda wildcards: f"{WORK}/{wildcards.stage}",
        output_dir=lambda wildcards: f"{RESULTS}/{wildcards.stage}",
        python=python_of("train"),
    shell:
        "{params.python} scripts/train.py --stage {wildcards.stage} --model-dir {params.model_dir:q}"
        " --dataset {input.dataset} --settings {params.settings:q} --seed {params.seed}"
        " --work-dir {params.work_dir} --output-dir {params.output_dir} --log {log}"
