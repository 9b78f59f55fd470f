# The two donors: fetched, used where they lie, or made on the spot; each recorded with the checksums of its files,
# and the files beside the weights tried.


wildcard_constraints:
    donor="|".join(re.escape(name) for name in RUN.role_of_donor),


rule donor:
    input:
        donor_files,
        script=program("donors.fetch_donor"),
        env=RUN.environment("train"),
    output:
        # Kept, not deleted before a rerun: its checksums tell whether the donor has changed since.
        update("resources/donors/{donor}.json"),
    log:
        "logs/donors/{donor}.log",
    benchmark:
        "resources/donors/{donor}.recorded.tsv"
    localrule: True
    params:
        run=lambda wildcards: shell_command(RUN, "donors.fetch_donor", role=RUN.role_of_donor[wildcards.donor]),
    shell:
        "{params.run} 2>&1 | tee {log:q}"


rule donor_check:
    input:
        script=program("donors.check_donor"),
        env=RUN.environment("train"),
        manifest="resources/donors/{donor}.json",
    output:
        "resources/donors/{donor}.check.json",
    log:
        "logs/donors/{donor}.check.log",
    priority: 1
    localrule: True
    params:
        run=lambda wildcards: shell_command(RUN, "donors.check_donor", role=RUN.role_of_donor[wildcards.donor]),
    shell:
        "{params.run} 2>&1 | tee {log:q}"
