# Stage 1 trains the aligner, stage 2 everything; both by `swift sft` through one launcher.
# The checkpoints of a run lie in WORK and survive a failure; the exported checkpoint is declared, and comes last. It is declared
# by its index, not as a directory: another rule writes the model card beside the weights (rules/upload.smk).


# One rule a stage, because what each asks of a cluster has to stand in its rule (rules/resources.smk).
for stage in STAGES:

    rule:
        name:
            stage
        input:
            MODEL_PACKAGE,
            script=program("train/train"),
            # Loaded by ms-swift, not imported by the program.
            watch=program("train/watch"),
            env=environment("train"),
            model=lambda wildcards: checkpoint_identity(before(wildcards.stage)),
            # A gate: a graft that lost something is not trained. A repeated proof only exports again what WORK holds.
            fidelity=result("graft/fidelity.json"),
            dataset=result("data/{stage}.jsonl"),
            check=result("data/{stage}.check.json"),
        output:
            result("{stage}/checkpoint/model.safetensors.index.json"),
            result("{stage}/metrics.json"),
        log:
            f"logs/{RESULTS}/{{stage}}.log",
        wildcard_constraints:
            stage=stage,
        threads: 1
        resources:
            **training_resources(stage),
        params:
            model_dir=lambda wildcards: checkpoint_dir(before(wildcards.stage)),
            settings=lambda wildcards: section(wildcards.stage),
            seed=config["seed"],
            work_dir=lambda wildcards: f"{WORK}/{wildcards.stage}",
            output_dir=lambda wildcards: result(wildcards.stage),
            train_python=python_of("train"),
            python=python_of("workflow"),
        shell:
            "{params.python} scripts train.train --stage {wildcards.stage} --model-dir {params.model_dir:q}"
            " --dataset {input.dataset} --settings {params.settings:q} --seed {params.seed}"
            " --work-dir {params.work_dir} --output-dir {params.output_dir} --log {log}"
            " --train-python {params.train_python} --attempt {resources.attempt}"
