# The graft: config.json derived from both donors, tensors streamed from their shards, and the comparison with the
# language donor; for `calibration: affine` also the refit that replaces q and k.


rule graft_config:
    input:
        script=program("graft.derive_config"),
        vl=RUN.donor_manifest("vl"),
        llm=RUN.donor_manifest("llm"),
    output:
        RUN.graft_config,
    log:
        RUN.log("graft-config"),
    localrule: True
    params:
        run=run("graft.derive_config"),
    shell:
        "{params.run} 2>&1 | tee {log:q}"


rule model_files:
    input:
        script=program("graft.write_model_files"),
        configuration=shipped("model/qwen2_5_vl_qwen3/configuration_qwen2_5_vl_qwen3.py"),
        modeling=shipped("model/qwen2_5_vl_qwen3/modeling_qwen2_5_vl_qwen3.py"),
        vl=RUN.donor_manifest("vl"),
        llm=RUN.donor_manifest("llm"),
        config=RUN.graft_config,
    output:
        f"{RUN.model_files_dir}/config.json",
    log:
        RUN.log("model-files"),
    localrule: True
    params:
        run=run("graft.write_model_files"),
    shell:
        "{params.run} 2>&1 | tee {log:q}"


rule calibration:
    input:
        script=program("graft.calibrate"),
        env=RUN.environment("train"),
        text=text_path(config["calibration"]["text"]),
        llm=RUN.donor_manifest("llm"),
    output:
        refit=RUN.refit,
        report=RUN.calibration,
    log:
        RUN.log("calibration"),
    benchmark:
        RUN.result("times/calibration.tsv")
    threads: 64
    resources:
        **calibration_resources(),
    params:
        run=run("graft.calibrate"),
    shell:
        "{params.run} 2>&1 | tee {log:q}"


rule graft:
    input:
        script=program("graft.graft"),
        configuration=shipped("model/qwen2_5_vl_qwen3/configuration_qwen2_5_vl_qwen3.py"),
        modeling=shipped("model/qwen2_5_vl_qwen3/modeling_qwen2_5_vl_qwen3.py"),
        vl=RUN.donor_manifest("vl"),
        llm=RUN.donor_manifest("llm"),
        config=RUN.graft_config,
        refit=[RUN.refit, RUN.calibration] if RUN.is_refitted else [],
    output:
        RUN.result("graft/model.safetensors.index.json"),
        ledger=RUN.ledger,
    log:
        RUN.log("graft"),
    benchmark:
        RUN.result("times/graft.tsv")
    threads: 2
    params:
        run=run("graft.graft"),
    shell:
        "{params.run} 2>&1 | tee {log:q}"


rule fidelity:
    input:
        script=program("graft.check_fidelity"),
        env=RUN.environment("train"),
        text=text_path(config["fidelity"]["text"]),
        llm=RUN.donor_manifest("llm"),
        graft=RUN.ledger,
        calibration=[RUN.calibration, text_path(config["calibration"]["text"])] if RUN.is_refitted else [],
    output:
        report(RUN.fidelity, caption="captions/fidelity.rst", category="Graft", labels={"file": "fidelity"}),
    log:
        RUN.log("fidelity"),
    benchmark:
        RUN.result("times/fidelity.tsv")
    threads: 16
    params:
        run=run("graft.check_fidelity"),
    shell:
        "{params.run} 2>&1 | tee {log:q}"
