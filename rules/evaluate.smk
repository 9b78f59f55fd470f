# Each model is served and asked every question once; the table is made from the records, one per question.


wildcard_constraints:
    benchmark="[a-z0-9_]+",
    model="(parent|graft|stage1|stage2)(-shuffled|-blind)?",
    share="[0-9]+",


# What decides the answers.
EVALUATION_INPUT = {
    "package": MODEL_PACKAGE,
    # Started by the programs, not imported by them.
    "harness": program(f"evaluate.run_{RUN.backend}"),
    "env": RUN.environment("evaluate"),
    "serve_env": RUN.environment(RUN.serve_role),
    "model": lambda wildcards: RUN.checkpoint_identity(base_of(wildcards.model)),
    "benchmark": lambda wildcards: RUN.questions_identity(wildcards.benchmark),
    "limits": lambda wildcards: RUN.questions_limits(wildcards.benchmark),
}


rule check_limits:
    input:
        script=program("evaluate.check_limits"),
        env=RUN.environment("train"),
        benchmark=lambda wildcards: RUN.questions_identity(wildcards.benchmark),
        plugin=shipped("model/qwen2_5_vl_qwen3/swift_plugin.py"),
        model=f"{RUN.model_files_dir}/config.json",
    output:
        RUN.result("questions/{benchmark}.limits.json"),
    log:
        RUN.log("check-limits-{benchmark}"),
    priority: 1  # what does not fit is said before a training begins
    localrule: True
    params:
        run=run("evaluate.check_limits"),
    shell:
        "{params.run} 2>&1 | tee {log:q}"


rule answer_share:
    # One node's part of the questions, where several share them; `evaluate` puts the answers together.
    input:
        **EVALUATION_INPUT,
        script=program("evaluate.answer_share"),
    output:
        RUN.share("{benchmark}", "{model}", "{share}"),
    log:
        RUN.evaluation_log("{benchmark}", "{model}", "{share}"),
    threads: 1
    resources:
        **serving_resources(),
    params:
        run=run("evaluate.answer_share"),
    shell:
        "{params.run}"


rule evaluate:
    input:
        **EVALUATION_INPUT,
        script=program("evaluate.evaluate"),
        shares=[RUN.share("{benchmark}", "{model}", share) for share in RUN.shares],
    output:
        records=RUN.records("{benchmark}", "{model}"),
        provenance=RUN.records_provenance("{benchmark}", "{model}"),
    log:
        RUN.evaluation_log("{benchmark}", "{model}"),
    threads: 1
    resources:
        **({} if RUN.shares else serving_resources()),
    params:
        run=run("evaluate.evaluate"),
    shell:
        "{params.run}"


rule table:
    input:
        script=program("evaluate.make_table"),
        records=[RUN.records("{benchmark}", model) for model in RUN.models],
        provenances=[RUN.records_provenance("{benchmark}", model) for model in RUN.models],
    output:
        csv=report(
            RUN.scores("{benchmark}"),
            caption="captions/scores.rst",
            category="Scores",
            labels={"benchmark": "{benchmark}", "table": "scores"},
        ),
        json=RUN.scores_provenance("{benchmark}"),
        comparison=report(
            RUN.comparison("{benchmark}"),
            caption="captions/comparison.rst",
            category="Scores",
            labels={"benchmark": "{benchmark}", "table": "two models at a time"},
        ),
    log:
        RUN.log("table-{benchmark}"),
    localrule: True
    params:
        run=run("evaluate.make_table"),
    shell:
        "{params.run} > {log:q} 2>&1"
