# The page to open first: the run, its curves, the scores with intervals, pictures with questions and answers.
# Templates, styles and the script of the pages; Python modules are found by their imports.
REPORT_FILES = sorted(
    str(path) for path in Path(shipped("scripts/report")).glob("*.*") if path.suffix in (".j2", ".css", ".js")
)
SCORES = {
    "scores": [RUN.scores(benchmark) for benchmark in RUN.benchmarks],
    "provenances": [RUN.scores_provenance(benchmark) for benchmark in RUN.benchmarks],
}
DONOR_MANIFESTS = [RUN.donor_manifest("vl"), RUN.donor_manifest("llm")]


rule effective_config:
    input:
        script=program("workflow.save_config"),
    output:
        RUN.effective_config,
    log:
        RUN.log("config"),
    localrule: True
    params:
        run=run("workflow.save_config"),
    shell:
        "{params.run} > {log:q} 2>&1"


rule report:
    input:
        **SCORES,
        script=program("report.make_report"),
        page=REPORT_FILES,
        published=shipped("config/published_scores.yaml"),
        config=RUN.effective_config,
        metrics=[RUN.metrics(stage) for stage in STAGES],
        checks=[RUN.dataset_check(stage) for stage in STAGES],
        ledger=RUN.ledger,
        fidelity=RUN.fidelity,
        benchmarks=[RUN.questions_identity(benchmark) for benchmark in RUN.benchmarks],
        records=[RUN.records(benchmark, model) for benchmark in RUN.benchmarks for model in RUN.models],
        donors=DONOR_MANIFESTS,
        locks=RUN.locks,
        times=list(RUN.step_times.values()),
    output:
        report(RUN.report, caption="captions/report.rst", category="Report", labels={"page": "whole run"}),
        [
            report(RUN.curve(stage), caption="captions/curve.rst", category="Training", labels={"loss of": stage})
            for stage in STAGES
        ],
    log:
        RUN.log("report"),
    localrule: True
    params:
        run=run("report.make_report"),
    shell:
        "{params.run} 2>&1 | tee {log:q}"


rule disagreements:
    input:
        script=program("report.make_disagreements"),
        page=REPORT_FILES,
        benchmark=lambda wildcards: RUN.questions_identity(wildcards.benchmark),
        records=[RUN.records("{benchmark}", model) for model in RUN.models],
    output:
        report(
            RUN.disagreements("{benchmark}"),
            caption="captions/disagreements.rst",
            category="Scores",
            labels={"benchmark": "{benchmark}", "table": "where models disagree"},
        ),
    log:
        RUN.log("disagreements-{benchmark}"),
    localrule: True
    params:
        run=run("report.make_disagreements"),
    shell:
        "{params.run} 2>&1 | tee {log:q}"
