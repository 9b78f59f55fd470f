# What a run takes, before anything is fetched or spent: `snakemake plan`. It needs nothing, and always says it anew.


rule plan:
    log:
        RUN.log("plan"),
    localrule: True
    params:
        run=run("plan.make_plan"),
        limits=json.dumps(limits_of_jobs(workflow.resource_settings.overwrite_resources, STAGES)),
    shell:
        "{params.run} --limits {params.limits:q} 2>&1 | tee {log:q}"
