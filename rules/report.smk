# One page a person opens first: what was run, curves, the table with intervals, pictures with questions and answers.
BENCHMARKS = config["evaluate"]["benchmarks"]
MODELS = config["evaluate"]["models"]


rule effective_config:
    input:
        script=program("save_config"),
    output:
        RESULTS + "/config.json",
    log:
        f"logs/{RESULTS}/config.log",
    localrule: True
    params:
        config=json.dumps(config, sort_keys=True),
        python=python_of("workflow"),
    shell:
        "{params.python} scripts/save_config.py --config {params.config:q} --output {output} > {log} 2>&1"


rule report:
    input:
        script=program("make_report"),
        page=sorted(str(path) for path in Path("scripts/report").glob("*.*")),
        config=RESULTS + "/config.json",
        metrics=expand(RESULTS + "/{stage}/metrics.json", stage=["stage1", "stage2"]),
        ledger=LEDGER,
        fidelity=GRAFT + "/fidelity.json",
        tsvs=[benchmark_tsv(benchmark) for benchmark in BENCHMARKS],
        scores=expand(RESULTS + "/eval/{benchmark}.csv", benchmark=BENCHMARKS),
        provenances=expand(RESULTS + "/eval/{benchmark}.json", benchmark=BENCHMARKS),
        records=expand(RESULTS + "/eval/{benchmark}/{model}.jsonl", benchmark=BENCHMARKS, model=MODELS),
        donors=[donor_manifest("vl"), donor_manifest("llm")],
        locks=expand("envs/{role}.lock", role=sorted({"workflow", "train", "evaluate", SERVE_ROLE})),
    output:
        RESULTS + "/report.html",
    log:
        f"logs/{RESULTS}/report.log",
    localrule: True
    params:
        title=RESULTS,
        num_gallery_pictures=config["report"]["num_gallery_pictures"],
        benchmarks=[f"{benchmark}={benchmark_tsv(benchmark)}" for benchmark in BENCHMARKS],
        scores=expand("{benchmark}=" + RESULTS + "/eval/{benchmark}.csv", benchmark=BENCHMARKS),
        provenances=expand("{benchmark}=" + RESULTS + "/eval/{benchmark}.json", benchmark=BENCHMARKS),
        metrics=expand("{stage}=" + RESULTS + "/{stage}/metrics.json", stage=["stage1", "stage2"]),
        records=expand(
            "{benchmark}:{model}=" + RESULTS + "/eval/{benchmark}/{model}.jsonl",
            benchmark=BENCHMARKS,
            model=MODELS,
        ),
        python=python_of("workflow"),
    shell:
        "{params.python} scripts/make_report.py --title {params.title} --config {input.config}"
        " --metrics {params.metrics} --ledger {input.ledger} --fidelity {input.fidelity}"
        " --benchmark {params.benchmarks} --scores {params.scores} --score-provenance {params.provenances}"
        " --records {params.records} --donor {input.donors} --lock {input.locks}"
        " --num-gallery-pictures {params.num_gallery_pictures} --output {output} 2>&1 | tee {log}"
