# The two donors: fetched, used where they lie, or made on the spot; each recorded with the checksums of its files.


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
