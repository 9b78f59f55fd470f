# Training data of each stage: prepared and checked before anything is trained.


wildcard_constraints:
    stage="stage1|stage2",


rule dataset:
    input:
        local_datasets,
        script=program("data.prepare_dataset"),
        env=RUN.environment("train"),
    output:
        RUN.prepared_rows("{stage}"),
        origins=RUN.row_origins("{stage}"),
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
        env=RUN.environment("train"),
        rows=RUN.prepared_rows("{stage}"),
        origins=RUN.row_origins("{stage}"),
        plugin=shipped("model/qwen2_5_vl_qwen3/swift_plugin.py"),
        model=f"{RUN.model_files_dir}/config.json",
    output:
        RUN.dataset_check("{stage}"),
        kept=RUN.dataset("{stage}"),
    log:
        RUN.log("check-dataset-{stage}"),
    localrule: True
    params:
        run=run("data.check_dataset"),
    shell:
        "{params.run} 2>&1 | tee {log:q}"
