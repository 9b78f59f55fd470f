# What needs a network, for clusters whose compute nodes have none: `snakemake --profile slurm prefetch` on a login node.
# In a call of its own: what is made with an environment would otherwise be made anew in the call that builds it.


rule prefetch:
    input:
        [environment(role) for role in ROLES],
        [donor_manifest(role) for role in config["donors"] if config["donors"][role]["kind"] != "demo"],
        expand(result("data/{stage}.check.json"), stage=STAGES),
        [benchmark_identity(benchmark) for benchmark in BENCHMARKS],
    localrule: True
