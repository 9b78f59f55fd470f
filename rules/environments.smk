# The environments of the roles train, serve and evaluate, from their hashed locks: virtual environments, or one image that
# holds them all, as environments.kind says (scripts/environments/settings.py). serve_cpu is for tests, app for `make app`.
# They lie in the repository, also where the workflow is used from another directory.
# What is in an environment is decided by the content of its locks alone: dates and programs have no influence.


wildcard_constraints:
    role="train|serve|serve_cpu|evaluate|app",


rule environment:
    input:
        lock=locks_of(".venvs/{role}.ok", "{role}"),
    output:
        # Left to the program, which leaves an environment of this lock alone.
        update(shipped(".venvs/{role}.ok")),
    log:
        "logs/environments/{role}.log",
    localrule: True
    params:
        run=build("environments.build_environment"),
    shell:
        "{params.run} --lock {input.lock:q} --marker {output:q} > {log:q} 2>&1"


rule flash_attention_environment:
    input:
        locks=locks_of(".venvs/train_flash_attn.ok", "train", "flash_attn"),
    output:
        update(shipped(".venvs/train_flash_attn.ok")),
    log:
        "logs/environments/train_flash_attn.log",
    localrule: True
    params:
        run=build("environments.build_environment"),
    shell:
        "{params.run} --lock {input.locks[0]:q} --compiled-lock {input.locks[1]:q} --marker {output:q} > {log:q} 2>&1"


rule image:
    input:
        # An existing image is never rebuilt: it may come from elsewhere. The rule below checks that it was built from these
        # locks.
        script=ancient(program("environments.build_image")),
        definition=ancient(shipped("envs/vlgraft.def")),
    output:
        shipped(".venvs/vlgraft.sif"),
    log:
        "logs/environments/image.log",
    localrule: True
    params:
        run=build("environments.build_image"),
    shell:
        "{params.run} --definition {input.definition:q} --image {output:q} > {log:q} 2>&1"


rule image_environment:
    input:
        image=shipped(".venvs/vlgraft.sif"),
        lock=locks_of(".venvs/image/{role}.ok", "{role}"),
    output:
        shipped(".venvs/image/{role}.ok"),
    log:
        "logs/environments/image-{role}.log",
    localrule: True
    params:
        run=build("environments.enter_image"),
    shell:
        "{params.run} --image {input.image:q} --lock {input.lock:q} --marker {output:q} > {log:q} 2>&1"
