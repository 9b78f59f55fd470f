# Benchmarks: fetched and verified, or made from the user's own list, before a model is asked.


rule benchmark:
    # The TSV itself is not declared: Snakemake would delete one that the user put there before fetching it anew.
    input:
        script=program("questions.fetch_benchmark"),
        env=RUN.environment("evaluate"),
    output:
        "resources/benchmarks/{dataset}.md5",
    log:
        "logs/data/benchmark-{dataset}.log",
    priority: 1  # what is wrong with the questions is said before a training begins
    localrule: True
    params:
        run=run("questions.fetch_benchmark"),
    shell:
        "{params.run} 2>&1 | tee {log:q}"


rule native_benchmark:
    # As with `benchmark`, the table is not declared: it is verified in place, never deleted before it is fetched anew.
    input:
        script=program("questions.fetch_native_benchmark"),
        env=RUN.environment("evaluate"),
    output:
        "resources/benchmarks/native/{dataset}.json",
    log:
        "logs/data/native-benchmark-{dataset}.log",
    priority: 1  # what is wrong with the questions is said before a training begins
    localrule: True
    params:
        run=run("questions.fetch_native_benchmark"),
    shell:
        "{params.run} 2>&1 | tee {log:q}"


rule own_questions:
    input:
        own_list,
        script=program("questions.tabulate_benchmark"),
    output:
        RUN.result("questions/{benchmark}.tsv"),
    log:
        RUN.log("questions-{benchmark}"),
    priority: 1  # what is wrong with the questions is said before a training begins
    localrule: True
    params:
        run=run("questions.tabulate_benchmark"),
    shell:
        "{params.run} 2>&1 | tee {log:q}"


rule questions_check:
    input:
        table=lambda wildcards: RUN.questions(wildcards.benchmark),
        script=program("questions.check_table"),
    output:
        RUN.questions_check("{benchmark}"),
    log:
        RUN.log("questions-check-{benchmark}"),
    priority: 1
    localrule: True
    params:
        run=run("questions.check_table"),
    shell:
        "{params.run} 2>&1 | tee {log:q}"
