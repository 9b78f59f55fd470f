# The model card of a stage's checkpoint, and the proof that the checkpoint can be used without this repository.


rule model_card:
    # Made after the tables, because it holds the scores. It is no part of the model's identity, so nothing is made from it.
    input:
        **SCORES,
        script=program("upload.make_model_card"),
        template=shipped("scripts/upload/card.md.j2"),
        metrics=lambda wildcards: [RUN.metrics(stage) for stage in stages_up_to(wildcards.stage)],
        checks=lambda wildcards: [RUN.dataset_check(stage) for stage in stages_up_to(wildcards.stage)],
        ledger=RUN.ledger,
        fidelity=RUN.fidelity,
        donors=DONOR_MANIFESTS,
    output:
        RUN.model_card("{stage}"),
    log:
        RUN.log("model-card-{stage}"),
    localrule: True
    params:
        run=run("upload.make_model_card"),
    shell:
        "{params.run} 2>&1 | tee {log:q}"


rule check_checkpoint:
    input:
        script=program("upload.check_checkpoint"),
        # Started by the program, not imported by it.
        loader=shipped("scripts/upload/load_checkpoint.py"),
        env=RUN.environment("train"),
        metrics=RUN.metrics("{stage}"),
        card=RUN.model_card("{stage}"),
    output:
        RUN.checkpoint_check("{stage}"),
    log:
        RUN.log("check-checkpoint-{stage}"),
    threads: 1
    params:
        run=run("upload.check_checkpoint"),
    shell:
        "{params.run} 2>&1 | tee {log:q}"
