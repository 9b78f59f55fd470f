# Training data of each stage: prepared and checked before anything is trained.


wildcard_constraints:
    stage="stage1|stage2",


rule dataset:
    input:
        local_datasets,
        script=program("data.prepare_dataset"),
        env=RUN.environment("train"),
    output:
        RUN.dataset("{stage}"),
    log:
        RUN.log("dataset-{stage}"),
    localrule: True
    params:
        run=run("data.prepare_dataset"),
    shell:
        "{params.run} 2>&1 | tee {log:q}"


rule check_dataset:
    input:
        script=program("data.check_dataset"),
        dataset=RUN.dataset("{stage}"),
    output:
        RUN.dataset_check("{stage}"),
    log:
        RUN.log("check-dataset-{stage}"),
    localrule: True
    params:
        run=run("data.check_dataset"),
    shell:
        "{params.run} 2>&1 | tee {log:q}"
