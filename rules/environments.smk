# The environments of the roles train, serve and evaluate, from their hashed locks: virtual environments, or one image that
# holds them all. Which of the two is used, environments.kind says (environment_dir in common.smk). serve_cpu is for tests.


wildcard_constraints:
    role="train|serve|serve_cpu|evaluate",


rule environment:
    input:
        # Only the lock decides what is in an environment.
        script=ancient(program("environments/build_environment")),
        lock="envs/{role}.lock",
    output:
        ".venvs/{role}.ok",
    log:
        "logs/environments/{role}.log",
    localrule: True
    params:
        environment_dir=lambda wildcards, output: output[0].removesuffix(".ok"),
        python=python_of("workflow"),
    shell:
        "{params.python} scripts environments.build_environment --lock {input.lock} --environment-dir {params.environment_dir}"
        " --marker {output} > {log} 2>&1"


rule flash_attention_environment:
    input:
        script=ancient(program("environments/build_environment")),
        lock="envs/train.lock",
        compiled_lock="envs/flash_attn.lock",
    output:
        ".venvs/train_flash_attn.ok",
    log:
        "logs/environments/train_flash_attn.log",
    localrule: True
    params:
        environment_dir=lambda wildcards, output: output[0].removesuffix(".ok"),
        python=python_of("workflow"),
    shell:
        "{params.python} scripts environments.build_environment --lock {input.lock} --compiled-lock {input.compiled_lock}"
        " --environment-dir {params.environment_dir} --marker {output} > {log} 2>&1"


rule image:
    input:
        # One that is there is never built anew by itself: it may come from elsewhere. Whether it is of these locks is checked
        # when it is entered.
        script=ancient(program("environments/build_image")),
        definition=ancient("envs/vlgraft.def"),
    output:
        ".venvs/vlgraft.sif",
    log:
        "logs/environments/image.log",
    localrule: True
    params:
        python=python_of("workflow"),
    shell:
        "{params.python} scripts environments.build_image --definition {input.definition} --image {output} > {log} 2>&1"


rule image_environment:
    input:
        script=ancient(program("environments/enter_image")),
        image=".venvs/vlgraft.sif",
        lock="envs/{role}.lock",
    output:
        ".venvs/image/{role}.ok",
    log:
        "logs/environments/image-{role}.log",
    localrule: True
    params:
        environment_dir=lambda wildcards, output: output[0].removesuffix(".ok"),
        python=python_of("workflow"),
    shell:
        "{params.python} scripts environments.enter_image --image {input.image} --lock {input.lock}"
        " --environment-dir {params.environment_dir} --marker {output} > {log} 2>&1"
