# The graft: config.json derived from both donors, tensors streamed from their shards, and the proof that nothing was lost.


rule graft_config:
    input:
        script=program("derive_config"),
        vl=donor_manifest("vl"),
        llm=donor_manifest("llm"),
    output:
        result("graft/config.json"),
    log:
        f"logs/{RESULTS}/graft-config.log",
    localrule: True
    params:
        vl_dir=lambda wildcards: donor_dir("vl"),
        llm_dir=lambda wildcards: donor_dir("llm"),
        settings=section("graft"),
        python=python_of("workflow"),
    shell:
        "{params.python} scripts/derive_config.py --vl-dir {params.vl_dir:q} --llm-dir {params.llm_dir:q}"
        " --settings {params.settings:q} --output {output} 2>&1 | tee {log}"


rule graft:
    input:
        script=program("graft"),
        configuration="model/qwen2_5_vl_qwen3/configuration_qwen2_5_vl_qwen3.py",
        modeling="model/qwen2_5_vl_qwen3/modeling_qwen2_5_vl_qwen3.py",
        vl=donor_manifest("vl"),
        llm=donor_manifest("llm"),
        config=result("graft/config.json"),
    output:
        result("graft/model.safetensors.index.json"),
        ledger=LEDGER,
    log:
        f"logs/{RESULTS}/graft.log",
    benchmark:
        result("times/graft.tsv")
    threads: 2
    params:
        vl_dir=lambda wildcards: donor_dir("vl"),
        llm_dir=lambda wildcards: donor_dir("llm"),
        settings=section("graft"),
        seed=config["seed"],
        python=python_of("workflow"),
    shell:
        "{params.python} scripts/graft.py --vl-dir {params.vl_dir:q} --vl-manifest {input.vl:q}"
        " --llm-dir {params.llm_dir:q} --llm-manifest {input.llm:q}"
        " --config {input.config} --settings {params.settings:q} --seed {params.seed}"
        " --model-code-dir $(dirname {input.modeling}) --output-dir $(dirname {output.ledger}) 2>&1 | tee {log}"


rule fidelity:
    input:
        script=program("check_fidelity"),
        env=environment("train"),
        text=config["fidelity"]["text"],
        llm=donor_manifest("llm"),
        graft=LEDGER,
    output:
        result("graft/fidelity.json"),
    log:
        f"logs/{RESULTS}/fidelity.log",
    benchmark:
        result("times/fidelity.tsv")
    threads: 1
    params:
        llm_dir=lambda wildcards: donor_dir("llm"),
        settings=section("fidelity"),
        python=python_of("train"),
    shell:
        "{params.python} scripts/check_fidelity.py --graft-dir $(dirname {input.graft}) --llm-dir {params.llm_dir:q}"
        " --settings {params.settings:q} --output {output} 2>&1 | tee {log}"
