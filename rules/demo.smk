# The demo's own data and donors, made on the spot.


rule digits:
    input:
        script=program("demo.make_digits"),
        env=RUN.environment("train"),
    output:
        expand(f"{DIGITS_DIR}/{{split}}.jsonl", split=["train", "dev", "test"]),
        expand(f"{DIGITS_DIR}/{{split}}.tsv", split=["dev", "test"]),
    log:
        "logs/data/digits.log",
    localrule: True
    params:
        run=run("demo.make_digits"),
    shell:
        "{params.run} 2>&1 | tee {log:q}"


rule demo_vision_donor:
    input:
        script=program("demo.make_demo_vision_donor"),
        env=RUN.environment("train"),
        digits=f"{DIGITS_DIR}/train.jsonl",
    output:
        f"{RUN.demo_donor_dir('vl')}/config.json",
    log:
        f"logs/donors/make-{RUN.demo_donor_name('vl')}.log",
    benchmark:
        RUN.demo_donor_time("vl")
    threads: 1
    params:
        run=run("demo.make_demo_vision_donor"),
    shell:
        "{params.run} 2>&1 | tee {log:q}"


rule demo_language_donor:
    input:
        script=program("demo.make_demo_language_donor"),
        env=RUN.environment("train"),
    output:
        f"{RUN.demo_donor_dir('llm')}/config.json",
    log:
        f"logs/donors/make-{RUN.demo_donor_name('llm')}.log",
    benchmark:
        RUN.demo_donor_time("llm")
    threads: 1
    params:
        run=run("demo.make_demo_language_donor"),
    shell:
        "{params.run} 2>&1 | tee {log:q}"
