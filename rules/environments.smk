# One virtual environment a role, from its hashed lock.


rule environment:
    input:
        # Only the lock decides what is in an environment.
        script=ancient(program("build_environment")),
        lock="envs/{role}.lock",
    output:
        ".venvs/{role}.ok",
    log:
        "logs/environments/{role}.log",
    localrule: True
    params:
        environment_dir=lambda wildcards: f".venvs/{wildcards.role}",
        python=python_of("workflow"),
    shell:
        "{params.python} scripts/build_environment.py --lock {input.lock} --environment-dir {params.environment_dir}"
        " --marker {output} > {log} 2>&1"
