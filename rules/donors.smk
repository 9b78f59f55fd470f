# The two donors: fetched, used where they lie, or made on the spot; each recorded with the checksums of its files.


wildcard_constraints:
    donor="|".join(re.escape(name) for name in RUN.role_of_donor),


def donor_files(wildcards):
    """What a donor's manifest is made from, beside the hub: the demo's weights or the user's own files."""
    role = RUN.role_of_donor[wildcards.donor]
    donor = config["donors"][role]
    if donor["kind"] == "demo":
        return f"{RUN.donor_dir(role)}/config.json"
    if donor["kind"] == "local":
        return sorted(str(path) for path in Path(donor["path"]).glob("*") if path.suffix in (".json", ".safetensors"))
    return []


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
        "{params.run} 2>&1 | tee {log}"
