# The two donors: fetched, used where they lie, or made on the spot; each recorded with the checksums of its files.


wildcard_constraints:
    donor="|".join(re.escape(name) for name in DONOR_OF_NAME),


rule donor:
    input:
        donor_files,
        script=program("donors/fetch_donor"),
        env=environment("train"),
    output:
        # Kept, not deleted before a rerun: its checksums tell whether the donor has changed since.
        update("resources/donors/{donor}.json"),
    log:
        "logs/donors/{donor}.log",
    benchmark:
        "resources/donors/{donor}.recorded.tsv"
    localrule: True
    params:
        role=lambda wildcards: DONOR_OF_NAME[wildcards.donor],
        source=lambda wildcards: section("donors", DONOR_OF_NAME[wildcards.donor]),
        dir=lambda wildcards: donor_dir(DONOR_OF_NAME[wildcards.donor]),
        python=python_of("train"),
    shell:
        "{params.python} scripts donors.fetch_donor --role {params.role} --source {params.source:q} --dir {params.dir:q}"
        " --manifest {output} 2>&1 | tee {log}"


if "demo" in config:

    rule demo_vision_donor:
        input:
            script=program("demo/make_demo_vision_donor"),
            env=environment("train"),
            digits="resources/data/digits/train.jsonl",
        output:
            f"resources/donors/demo-vl-seed{config['seed']}/config.json",
        log:
            f"logs/donors/make-demo-vl-seed{config['seed']}.log",
        benchmark:
            f"resources/donors/demo-vl-seed{config['seed']}.made.tsv"
        threads: 1
        params:
            settings=section("demo", "vision_donor"),
            python=python_of("train"),
            seed=config["seed"],
        shell:
            "{params.python} scripts demo.make_demo_vision_donor --digits-dir $(dirname {input.digits})"
            " --settings {params.settings:q} --seed {params.seed} --output-dir $(dirname {output}) 2>&1 | tee {log}"

    rule demo_language_donor:
        input:
            script=program("demo/make_demo_language_donor"),
            env=environment("train"),
        output:
            f"resources/donors/demo-llm-seed{config['seed']}/config.json",
        log:
            f"logs/donors/make-demo-llm-seed{config['seed']}.log",
        benchmark:
            f"resources/donors/demo-llm-seed{config['seed']}.made.tsv"
        threads: 1
        params:
            settings=section("demo", "language_donor"),
            python=python_of("train"),
            seed=config["seed"],
        shell:
            "{params.python} scripts demo.make_demo_language_donor"
            " --settings {params.settings:q} --seed {params.seed} --output-dir $(dirname {output}) 2>&1 | tee {log}"
