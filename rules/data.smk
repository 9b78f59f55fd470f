# Training data of each stage, and the benchmarks: made, fetched and checked before anything is trained or asked.


wildcard_constraints:
    stage="stage1|stage2",


if "demo" in config:

    rule digits:
        input:
            script=program("demo/make_digits"),
            env=environment("train"),
        output:
            expand("resources/data/digits/{split}.jsonl", split=["dev", "test"]),
            expand("resources/data/digits/{split}.tsv", split=["dev", "test"]),
            train="resources/data/digits/train.jsonl",
        log:
            "logs/data/digits.log",
        localrule: True
        params:
            settings=section("demo", "digits"),
            python=python_of("train"),
        shell:
            "{params.python} scripts demo.make_digits --settings {params.settings:q}"
            " --output-dir $(dirname {output.train}) 2>&1 | tee {log}"


rule dataset:
    input:
        local_datasets,
        script=program("data/prepare_dataset"),
        env=environment("train"),
    output:
        result("data/{stage}.jsonl"),
    log:
        f"logs/{RESULTS}/dataset-{{stage}}.log",
    localrule: True
    params:
        sources=lambda wildcards: section(wildcards.stage, "datasets"),
        seed=config["seed"],
        python=python_of("train"),
    shell:
        "{params.python} scripts data.prepare_dataset --sources {params.sources:q} --seed {params.seed}"
        " --output {output} 2>&1 | tee {log}"


rule check_dataset:
    input:
        script=program("data/check_dataset"),
        dataset=result("data/{stage}.jsonl"),
    output:
        result("data/{stage}.check.json"),
    log:
        f"logs/{RESULTS}/check-dataset-{{stage}}.log",
    localrule: True
    params:
        python=python_of("workflow"),
    shell:
        "{params.python} scripts data.check_dataset --dataset {input.dataset} --output {output} 2>&1 | tee {log}"


rule benchmark:
    # The TSV itself is not declared: Snakemake would delete one that the user put there before fetching it anew.
    input:
        script=program("questions/fetch_benchmark"),
        env=environment("evaluate"),
    output:
        "resources/benchmarks/{dataset}.md5",
    log:
        "logs/data/benchmark-{dataset}.log",
    localrule: True
    params:
        tsv="resources/benchmarks/{dataset}.tsv",
        python=python_of("evaluate"),
    shell:
        "{params.python} scripts questions.fetch_benchmark --benchmark {wildcards.dataset} --tsv {params.tsv}"
        " --checksum {output} 2>&1 | tee {log}"


rule native_benchmark:
    # As with `benchmark`, the table is not declared: it is verified in place, never deleted before it is fetched anew.
    input:
        script=program("questions/fetch_native_benchmark"),
        env=environment("evaluate"),
    output:
        "resources/benchmarks/native/{dataset}.json",
    log:
        "logs/data/native-benchmark-{dataset}.log",
    localrule: True
    params:
        tsv="resources/benchmarks/native/{dataset}.tsv",
        source=lambda wildcards: native_source(wildcards.dataset),
        python=python_of("evaluate"),
    shell:
        "{params.python} scripts questions.fetch_native_benchmark --adapter {wildcards.dataset} {params.source}"
        " --tsv {params.tsv} --record {output} 2>&1 | tee {log}"


rule own_questions:
    input:
        own_list,
        script=program("questions/tabulate_benchmark"),
    output:
        result("questions/{benchmark}.tsv"),
    log:
        f"logs/{RESULTS}/questions-{{benchmark}}.log",
    localrule: True
    params:
        list_path=lambda wildcards: BENCHMARKS[wildcards.benchmark].own_path,
        python=python_of("workflow"),
    shell:
        "{params.python} scripts questions.tabulate_benchmark --list {params.list_path} --output {output} 2>&1 | tee {log}"
