# What needs a network, for clusters whose compute nodes have none: `snakemake --profile slurm prefetch` on a login node.
# A call of its own, because a call that builds an environment also makes anew what is made with it.


rule prefetch:
    input:
        [RUN.environment(role) for role in RUN.roles],
        [RUN.donor_check(role) for role in config["donors"] if config["donors"][role]["kind"] != "demo"],
        [RUN.dataset_check(stage) for stage in STAGES],
        [RUN.questions_identity(benchmark) for benchmark in RUN.benchmarks],
    localrule: True
