# Stage 1 trains the aligner, stage 2 everything; both by `swift sft` through one launcher.
# The checkpoints of a run lie in `work/` and survive a failure; the exported checkpoint is declared, and comes last. It is
# declared by its index, not as a directory: another rule writes the model card beside the weights (rules/upload.smk).


# One rule a stage, because what each asks of a cluster has to stand in its rule (rules/resources.smk).
for stage in STAGES:

    rule:
        name:
            stage
        input:
            MODEL_PACKAGE,
            script=program("train.train"),
            # Loaded by ms-swift, not imported by the program.
            watch=program("train.watch"),
            env=RUN.environment("train"),
            model=lambda wildcards: RUN.checkpoint_identity(before(wildcards.stage)),
            # A gate: a graft that lost something is not trained. A repeated proof only exports again what `work/` holds.
            fidelity=RUN.fidelity,
            dataset=RUN.dataset("{stage}"),
            check=RUN.dataset_check("{stage}"),
        output:
            RUN.result("{stage}/checkpoint/model.safetensors.index.json"),
            RUN.metrics("{stage}"),
        log:
            RUN.log("{stage}"),
        wildcard_constraints:
            stage=stage,
        threads: 1
        resources:
            **training_resources(stage),
        params:
            run=run("train.train"),
        shell:
            "{params.run} --attempt {resources.attempt}"
