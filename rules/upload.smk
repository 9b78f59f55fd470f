# What makes a stage's checkpoint ready to be published: its model card, and the proof that it can be used without this repository.


rule model_card:
    # After the tables, since it holds the scores; no part of what identifies the model, so nothing is made from it.
    input:
        script=program("upload/make_model_card"),
        template="scripts/upload/card.md.j2",
        metrics=lambda wildcards: expand(result("{stage}/metrics.json"), stage=stages_up_to(wildcards.stage)),
        checks=lambda wildcards: expand(result("data/{stage}.check.json"), stage=stages_up_to(wildcards.stage)),
        ledger=LEDGER,
        fidelity=result("graft/fidelity.json"),
        scores=expand(result("eval/{benchmark}.csv"), benchmark=BENCHMARKS),
        provenances=expand(result("eval/{benchmark}.json"), benchmark=BENCHMARKS),
        donors=[donor_manifest("vl"), donor_manifest("llm")],
    output:
        result("{stage}/checkpoint/README.md"),
    log:
        f"logs/{RESULTS}/model-card-{{stage}}.log",
    localrule: True
    params:
        checkpoint_dir=lambda wildcards: checkpoint_dir(wildcards.stage),
        metrics=lambda wildcards: expand(named("{stage}", "{stage}/metrics.json"), stage=stages_up_to(wildcards.stage)),
        checks=lambda wildcards: expand(
            named("{stage}", "data/{stage}.check.json"), stage=stages_up_to(wildcards.stage)
        ),
        benchmarks=[f"{name}={listed.dataset}" for name, listed in BENCHMARKS.items()],
        scores=expand(named("{benchmark}", "eval/{benchmark}.csv"), benchmark=BENCHMARKS),
        provenances=expand(named("{benchmark}", "eval/{benchmark}.json"), benchmark=BENCHMARKS),
        python=python_of("workflow"),
    shell:
        # As on the report, a commit alone makes no card stale.
        "{params.python} scripts upload.make_model_card --checkpoint-dir {params.checkpoint_dir}"
        " --commit $(git describe --always --dirty --abbrev=40 2>/dev/null || echo unknown)"
        " --metrics {params.metrics} --dataset-check {params.checks} --donor {input.donors} --ledger {input.ledger}"
        " --fidelity {input.fidelity} --benchmark {params.benchmarks} --scores {params.scores}"
        " --score-provenance {params.provenances} 2>&1 | tee {log}"


rule check_checkpoint:
    input:
        script=program("upload/check_checkpoint"),
        loader="scripts/upload/load_checkpoint.py",
        env=environment("train"),
        metrics=result("{stage}/metrics.json"),
        card=result("{stage}/checkpoint/README.md"),
    output:
        result("{stage}/checkpoint.check.json"),
    log:
        f"logs/{RESULTS}/check-checkpoint-{{stage}}.log",
    threads: 1
    params:
        train_python=python_of("train"),
        python=python_of("workflow"),
    shell:
        "{params.python} scripts upload.check_checkpoint --checkpoint-dir $(dirname {input.card})"
        " --python {params.train_python} --output {output} 2>&1 | tee {log}"
