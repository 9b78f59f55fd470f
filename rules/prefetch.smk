# What can be known before any training, without a GPU: `snakemake check` says whether donors, rows and questions are sound, or
# lists what to mend; `snakemake --profile slurm prefetch` on a login node fetches the same for nodes that have no network.
# Calls of their own, because a call that builds an environment also makes anew what is made with it.


rule prefetch:
    input:
        all_that_is_checked(),
    localrule: True


rule check:
    input:
        all_that_is_checked(),
        script=program("workflow.summarise_check"),
    log:
        RUN.log("check"),
    localrule: True
    params:
        run=run("workflow.summarise_check"),
    shell:
        "{params.run} 2>&1 | tee {log:q}"
