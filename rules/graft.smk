# The graft: config.json derived from both donors, tensors streamed from their shards, and the proof that nothing was lost.
GRAFT = RESULTS + "/graft"
# Everything in the graft's directory hangs on its ledger, which is written last and holds the sha256 of each tensor.
LEDGER = GRAFT + "/ledger.tsv"


rule graft_config:
    input:
        script=program("derive_config"),
        vl=donor_manifest("vl"),
        llm=donor_manifest("llm"),
    output:
        GRAFT + "/config.json",
    log:
        f"logs/{RESULTS}/graft-config.log",
    localrule: True
    params:
        vl_dir=donor_dir("vl"),
        llm_dir=donor_dir("llm"),
        settings=section("graft"),
        python=python_of("workflow"),
    shell:
        "{params.python} scripts/derive_config.py --vl-dir {params.vl_dir:q} --llm-dir {params.llm_dir:q}"
        " --settings {params.settings:q} --output {output} 2>&1 | tee {log}"


rule graft:
    input:
        script=program("graft"),
        model_code=expand("model/qwen2_5_vl_qwen3/{part}_qwen2_5_vl_qwen3.py", part=["configuration", "modeling"]),
        vl=donor_manifest("vl"),
        llm=donor_manifest("llm"),
        config=GRAFT + "/config.json",
    output:
        LEDGER,
        GRAFT + "/model.safetensors.index.json",
    log:
        f"logs/{RESULTS}/graft.log",
    threads: 2
    params:
        vl_dir=donor_dir("vl"),
        llm_dir=donor_dir("llm"),
        settings=section("graft"),
        seed=config["seed"],
        python=python_of("workflow"),
    shell:
        "{params.python} scripts/graft.py --vl-dir {params.vl_dir:q} --llm-dir {params.llm_dir:q}"
        " --config {input.config} --settings {params.settings:q} --seed {params.seed}"
        " --model-code-dir $(dirname {input.model_code[0]}) --output-dir $(dirname {output[0]}) 2>&1 | tee {log}"


rule fidelity:
    input:
        script=program("check_fidelity"),
        env=environment("train"),
        text=config["fidelity"]["text"],
        llm=donor_manifest("llm"),
        graft=LEDGER,
    output:
        GRAFT + "/fidelity.json",
    log:
        f"logs/{RESULTS}/fidelity.log",
    threads: 1
    params:
        llm_dir=donor_dir("llm"),
        settings=section("fidelity"),
        python=python_of("train"),
    shell:
        "{params.python} scripts/check_fidelity.py --graft-dir $(dirname {input.graft}) --llm-dir {params.llm_dir:q}"
        " --settings {params.settings:q} --output {output} 2>&1 | tee {log}"
