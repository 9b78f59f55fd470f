# One page a person opens first: what was run, curves, the table with intervals, pictures with questions and answers.


# Training, over all its starts, and asking say their own times: in metrics.json and in the provenance of the scores.
STEP_TIMES = [
    ("vision donor", donor_time("vl")),
    ("language donor", donor_time("llm")),
    ("graft", result("times/graft.tsv")),
    ("fidelity", result("times/fidelity.tsv")),
]


rule effective_config:
    input:
        script=program("workflow/save_config"),
    output:
        result("config.json"),
    log:
        f"logs/{RESULTS}/config.log",
    localrule: True
    params:
        # A function, or the braces of the prompts would be taken for wildcards.
        config=lambda wildcards: json.dumps(config, sort_keys=True),
        python=python_of("workflow"),
    shell:
        "{params.python} scripts workflow.save_config --config {params.config:q} --output {output} > {log} 2>&1"


rule report:
    input:
        script=program("report/make_report"),
        page=sorted(str(path) for path in Path("scripts/report").glob("*.*")),
        published="config/published_scores.yaml",
        config=result("config.json"),
        metrics=expand(result("{stage}/metrics.json"), stage=STAGES),
        ledger=LEDGER,
        fidelity=result("graft/fidelity.json"),
        benchmarks=[benchmark_identity(benchmark) for benchmark in BENCHMARKS],
        scores=expand(result("eval/{benchmark}.csv"), benchmark=BENCHMARKS),
        provenances=expand(result("eval/{benchmark}.json"), benchmark=BENCHMARKS),
        records=expand(result("eval/{benchmark}/{model}.jsonl"), benchmark=BENCHMARKS, model=MODELS),
        checks=expand(result("data/{stage}.check.json"), stage=STAGES),
        donors=[donor_manifest("vl"), donor_manifest("llm")],
        locks=expand("envs/{role}.lock", role=sorted({"workflow", "train", "evaluate", SERVE_ROLE})),
        times=[path for _, path in STEP_TIMES],
    output:
        result("report.html"),
    log:
        f"logs/{RESULTS}/report.log",
    localrule: True
    params:
        title=lambda wildcards: RESULTS,
        num_gallery_pictures=config["report"]["num_gallery_pictures"],
        benchmarks=[f"{benchmark}={benchmark_tsv(benchmark)}" for benchmark in BENCHMARKS],
        scores=expand(named("{benchmark}", "eval/{benchmark}.csv"), benchmark=BENCHMARKS),
        provenances=expand(named("{benchmark}", "eval/{benchmark}.json"), benchmark=BENCHMARKS),
        metrics=expand(named("{stage}", "{stage}/metrics.json"), stage=STAGES),
        checks=expand(named("{stage}", "data/{stage}.check.json"), stage=STAGES),
        records=expand(
            named("{benchmark}:{model}", "eval/{benchmark}/{model}.jsonl"), benchmark=BENCHMARKS, model=MODELS
        ),
        times=["=".join(step) for step in STEP_TIMES],
        python=python_of("workflow"),
    shell:
        # The commit is no param: it is said on the page, but a commit alone makes no page stale.
        "{params.python} scripts report.make_report --title {params.title} --config {input.config}"
        " --commit $(git describe --always --dirty --abbrev=40 2>/dev/null || echo unknown)"
        " --metrics {params.metrics} --ledger {input.ledger} --fidelity {input.fidelity}"
        " --benchmark {params.benchmarks} --scores {params.scores} --score-provenance {params.provenances}"
        " --records {params.records} --dataset-check {params.checks} --donor {input.donors} --lock {input.locks}"
        " --time {params.times:q} --num-gallery-pictures {params.num_gallery_pictures} --output {output} 2>&1 | tee {log}"
