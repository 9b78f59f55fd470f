# The graft: config.json derived from both donors, tensors streamed from their shards, and the proof that nothing was lost;
# for `calibration: affine` also the refit that takes the place of q and k.
IS_REFITTED = config["graft"]["calibration"] == "affine"
REFIT = result("calibration/q_k_refit.safetensors")
CALIBRATION = result("calibration/calibration.json")
# What decides the refit; the gate's threshold does not, so another one repeats no fit.
REFIT_SETTINGS = {key: value for key, value in config["calibration"].items() if key != "max_kl_nats"}


rule graft_config:
    input:
        script=program("graft/derive_config"),
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
        "{params.python} scripts graft.derive_config --vl-dir {params.vl_dir:q} --llm-dir {params.llm_dir:q}"
        " --settings {params.settings:q} --output {output} 2>&1 | tee {log}"


rule calibration:
    input:
        script=program("graft/calibrate"),
        env=environment("train"),
        text=config["calibration"]["text"],
        llm=donor_manifest("llm"),
    output:
        refit=REFIT,
        report=CALIBRATION,
    log:
        f"logs/{RESULTS}/calibration.log",
    benchmark:
        result("times/calibration.tsv")
    threads: 64
    resources:
        **calibration_resources(),
    params:
        llm_dir=lambda wildcards: donor_dir("llm"),
        settings=json.dumps(REFIT_SETTINGS, sort_keys=True),
        work_dir=f"{WORK}/calibration",
        python=python_of("train"),
    shell:
        "{params.python} scripts graft.calibrate --llm-dir {params.llm_dir:q} --settings {params.settings:q}"
        " --work-dir {params.work_dir} --output {output.refit} --report {output.report} 2>&1 | tee {log}"


rule graft:
    input:
        script=program("graft/graft"),
        configuration="model/qwen2_5_vl_qwen3/configuration_qwen2_5_vl_qwen3.py",
        modeling="model/qwen2_5_vl_qwen3/modeling_qwen2_5_vl_qwen3.py",
        vl=donor_manifest("vl"),
        llm=donor_manifest("llm"),
        config=result("graft/config.json"),
        refit=[REFIT] if IS_REFITTED else [],
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
        refit=f"--refit {REFIT}" if IS_REFITTED else "",
        python=python_of("workflow"),
    shell:
        "{params.python} scripts graft.graft --vl-dir {params.vl_dir:q} --vl-manifest {input.vl:q}"
        " --llm-dir {params.llm_dir:q} --llm-manifest {input.llm:q}"
        " --config {input.config} --settings {params.settings:q} --seed {params.seed}"
        " --model-code-dir $(dirname {input.modeling}) --output-dir $(dirname {output.ledger}) {params.refit} 2>&1"
        " | tee {log}"


rule fidelity:
    input:
        script=program("graft/check_fidelity"),
        env=environment("train"),
        text=config["fidelity"]["text"],
        llm=donor_manifest("llm"),
        graft=LEDGER,
        calibration=[CALIBRATION, config["calibration"]["text"]] if IS_REFITTED else [],
    output:
        result("graft/fidelity.json"),
    log:
        f"logs/{RESULTS}/fidelity.log",
    benchmark:
        result("times/fidelity.tsv")
    threads: 16
    params:
        llm_dir=lambda wildcards: donor_dir("llm"),
        settings=section("fidelity"),
        gate=f"--calibration {CALIBRATION} --max-kl-nats {config['calibration']['max_kl_nats']}" if IS_REFITTED else "",
        python=python_of("train"),
    shell:
        "{params.python} scripts graft.check_fidelity --graft-dir $(dirname {input.graft}) --llm-dir {params.llm_dir:q}"
        " --settings {params.settings:q} --output {output} {params.gate} 2>&1 | tee {log}"
