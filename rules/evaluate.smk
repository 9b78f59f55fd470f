# Each model is served and asked every question once; the table is made from the records, one per question.


wildcard_constraints:
    benchmark="[a-z0-9_]+",
    model="(parent|graft|stage1|stage2)(-shuffled|-blind)?",
    share="[0-9]+",


# What evaluate.py and answer_share.py have in common.
EVALUATION_INPUT = {
    # Started by the program, not imported by it.
    "harness": program(f"evaluate/run_{BACKEND}"),
    "package": MODEL_PACKAGE,
    "env": environment("evaluate"),
    "serve_env": environment(SERVE_ROLE),
    "model": lambda wildcards: checkpoint_identity(base_of(wildcards.model)),
    "benchmark": lambda wildcards: benchmark_identity(wildcards.benchmark),
}
EVALUATION_PARAMS = {
    "model_dir": lambda wildcards: checkpoint_dir(base_of(wildcards.model)),
    "backend": BACKEND,
    "dataset": lambda wildcards: BENCHMARKS[wildcards.benchmark].dataset,
    "tsv": lambda wildcards: benchmark_tsv(wildcards.benchmark),
    "control": lambda wildcards: control_of(wildcards.model),
    "serve": section("evaluate", "serve"),
    "settings": lambda wildcards: section("evaluate", BACKEND),  # a function: the prompts have braces
    "seed": config["seed"],
    "num_seeds": config["evaluate"]["num_seeds"],
    "serve_python": python_of(SERVE_ROLE),
    "work_dir": lambda wildcards: f"{WORK}/eval/{wildcards.benchmark}/{wildcards.model}",
    "python": python_of("evaluate"),
}


rule answer_share:
    # One node's part of the questions, where several share them; evaluate.py puts the answers together.
    input:
        **EVALUATION_INPUT,
        script=program("evaluate/answer_share"),
    output:
        result("eval/{benchmark}/{model}.shares/{share}.json"),
    log:
        f"logs/{RESULTS}/eval-{{benchmark}}-{{model}}-share{{share}}.log",
    threads: 1
    resources:
        **serving_resources(),
    params:
        **EVALUATION_PARAMS,
    shell:
        "{params.python} scripts evaluate.answer_share --share {wildcards.share} --output {output}"
        " --model-name {wildcards.model} --model-dir {params.model_dir:q} --backend {params.backend}"
        " --benchmark {params.dataset} --benchmark-tsv {params.tsv} --control {params.control}"
        " --serve {params.serve:q} --settings {params.settings:q} --seed {params.seed} --num-seeds {params.num_seeds}"
        " --serve-python {params.serve_python} --work-dir {params.work_dir} --log {log}"


rule evaluate:
    input:
        **EVALUATION_INPUT,
        script=program("evaluate/evaluate"),
        shares=expand(result("eval/{{benchmark}}/{{model}}.shares/{share}.json"), share=SHARES),
    output:
        records=result("eval/{benchmark}/{model}.jsonl"),
        provenance=result("eval/{benchmark}/{model}.json"),
    log:
        f"logs/{RESULTS}/eval-{{benchmark}}-{{model}}.log",
    threads: 1
    resources:
        **({} if SHARES else serving_resources()),
    params:
        **EVALUATION_PARAMS,
    shell:
        "{params.python} scripts evaluate.evaluate --records {output.records} --provenance {output.provenance}"
        " --model-name {wildcards.model} --model-dir {params.model_dir:q} --backend {params.backend}"
        " --benchmark {params.dataset} --benchmark-tsv {params.tsv} --control {params.control}"
        " --serve {params.serve:q} --settings {params.settings:q} --seed {params.seed} --num-seeds {params.num_seeds}"
        " --serve-python {params.serve_python} --work-dir {params.work_dir} --log {log}"


rule disagreements:
    input:
        script=program("report/make_disagreements"),
        page=sorted(str(path) for path in Path("scripts/report").glob("*.*")),
        benchmark=lambda wildcards: benchmark_identity(wildcards.benchmark),
        records=expand(result("eval/{{benchmark}}/{model}.jsonl"), model=config["evaluate"]["models"]),
    output:
        result("eval/{benchmark}.disagreements.html"),
    log:
        f"logs/{RESULTS}/disagreements-{{benchmark}}.log",
    localrule: True
    params:
        tsv=lambda wildcards: benchmark_tsv(wildcards.benchmark),
        python=python_of("workflow"),
    shell:
        "{params.python} scripts report.make_disagreements --name {wildcards.benchmark} --benchmark {params.tsv}"
        " --records {input.records} --output {output} 2>&1 | tee {log}"


rule table:
    input:
        script=program("evaluate/make_table"),
        records=expand(result("eval/{{benchmark}}/{model}.jsonl"), model=config["evaluate"]["models"]),
        provenances=expand(result("eval/{{benchmark}}/{model}.json"), model=config["evaluate"]["models"]),
    output:
        csv=result("eval/{benchmark}.csv"),
        json=result("eval/{benchmark}.json"),
        comparison=result("eval/{benchmark}.comparison.csv"),
    log:
        f"logs/{RESULTS}/table-{{benchmark}}.log",
    localrule: True
    params:
        python=python_of("workflow"),
    shell:
        "{params.python} scripts evaluate.make_table --records {input.records} --provenances {input.provenances}"
        " --output-csv {output.csv} --output-json {output.json} --output-comparison {output.comparison} > {log} 2>&1"
