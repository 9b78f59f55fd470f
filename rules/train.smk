# Stage 1 trains the aligner, stage 2 everything; both by `swift sft` through scripts/train/train.py.
# The trainer's checkpoints are in `work/` and survive a failure. The exported checkpoint is an output, and is written last.
# Its index is the output, not its directory, because another rule writes the model card into it (rules/upload.smk).


# One rule for each stage, because Snakemake wants the resources of a cluster in the rule (rules/resources.smk).
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
            # A graft that lost something, or whose donors cannot be used, is not trained. A repeated check only repeats the
            # export.
            fidelity=RUN.fidelity,
            donors=[RUN.donor_check("vl"), RUN.donor_check("llm")],
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
            "{params.run} --attempt {resources.attempt:q}"
