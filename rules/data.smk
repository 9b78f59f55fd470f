# Training data of each stage, and the benchmarks: made, fetched and checked before anything is trained or asked.


wildcard_constraints:
    stage="stage1|stage2",


if "demo" in config:

    rule digits:
        input:
            script=program("make_digits"),
            env=environment("train"),
        output:
            expand("resources/data/digits/{split}.jsonl", split=["train", "dev", "test"]),
            expand("resources/data/digits/{split}.tsv", split=["dev", "test"]),
        log:
            "logs/data/digits.log",
        localrule: True
        params:
            settings=section("demo", "digits"),
            python=python_of("train"),
        shell:
            "{params.python} scripts/make_digits.py --settings {params.settings:q}"
            " --output-dir $(dirname {output[0]}) 2>&1 | tee {log}"


def local_datasets(wildcards):
    """The sources that are files, as inputs; the others are ids registered in ms-swift."""
    sources = [source.partition("#")[0] for source in config[wildcards.stage]["datasets"]]
    return [source for source in sources if source.endswith((".jsonl", ".json"))]


rule dataset:
    input:
        local_datasets,
        script=program("prepare_dataset"),
        env=environment("train"),
    output:
        RESULTS + "/data/{stage}.jsonl",
    log:
        f"logs/{RESULTS}/dataset-{{stage}}.log",
    localrule: True
    params:
        sources=lambda wildcards: section(wildcards.stage, "datasets"),
        seed=config["seed"],
        python=python_of("train"),
    shell:
        "{params.python} scripts/prepare_dataset.py --sources {params.sources:q} --seed {params.seed}"
        " --output {output} 2>&1 | tee {log}"


rule check_dataset:
    input:
        script=program("check_dataset"),
        dataset=RESULTS + "/data/{stage}.jsonl",
    output:
        RESULTS + "/data/{stage}.check.json",
    log:
        f"logs/{RESULTS}/check-dataset-{{stage}}.log",
    localrule: True
    params:
        python=python_of("workflow"),
    shell:
        "{params.python} scripts/check_dataset.py --dataset {input.dataset} --output {output} 2>&1 | tee {log}"


rule benchmark_tsv:
    input:
        script=program("fetch_benchmark"),
        env=environment("evaluate"),
    output:
        protected("resources/benchmarks/{dataset}.tsv"),
    log:
        "logs/data/benchmark-{dataset}.log",
    localrule: True
    params:
        python=python_of("evaluate"),
    shell:
        "{params.python} scripts/fetch_benchmark.py --benchmark {wildcards.dataset} --output {output} 2>&1 | tee {log}"
