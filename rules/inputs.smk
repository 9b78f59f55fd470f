# Inputs that depend on a job: the user's own files, what a donor is made of, and an environment's locks.


def users_files(paths):
    """Files that the configuration does not name itself, as inputs: one whose name Snakemake would change is refused."""
    for path in paths:
        if fault := path_fault(str(path)):
            raise WorkflowError(fault)
    return [str(path) for path in paths]


def donor_files(wildcards):
    """What a donor's manifest is made from, beside the hub: the demo's weights or the user's own files."""
    role = RUN.role_of_donor[wildcards.donor]
    donor = config["donors"][role]
    if donor["kind"] == "demo":
        return f"{RUN.demo_donor_dir(role)}/config.json"
    if donor["kind"] == "local":
        paths = sorted(Path(donor["path"]).glob("*"))
        return users_files([path for path in paths if path.suffix in (".json", ".safetensors")])
    return []


def local_datasets(wildcards):
    """The sources that are files, as inputs; the others are ids registered in ms-swift."""
    return [path for source in config[wildcards.stage]["datasets"] if (path := file_of_source(source))]


def all_that_is_checked():
    """The environments, and the records that donors, rows and questions were checked."""
    return [
        *[RUN.environment(role) for role in RUN.roles],
        *[RUN.donor_check(role) for role in config["donors"]],
        *[RUN.dataset_check(stage) for stage in STAGES],
        *[RUN.questions_identity(benchmark) for benchmark in RUN.benchmarks],
        *[path for benchmark in RUN.benchmarks for path in RUN.questions_limits(benchmark)],
    ]


def own_list(wildcards):
    """The user's own list of questions with its pictures, or table. A picture that is not there is the program's to name."""
    path = RUN.benchmarks[wildcards.benchmark].own_path
    pictures = pictures_named_in(path) if path.suffix == ".jsonl" else []
    return users_files([path, *(picture for picture in pictures if file_fault(picture) is None)])


def locks_of(marker, *names):
    """The locks of an environment, as an input. Has it built if it is of others.

    Snakemake compares dates, or checksums that it noted when it last built: a fresh clone or a shared `.venvs` has none.
    """

    def of_role(wildcards):
        paths = [shipped(f"envs/{name.format(**wildcards)}.lock") for name in names]
        marker_path = shipped(marker.format(**wildcards))
        if is_outdated(Path(marker_path), list(map(Path, paths))):
            workflow.dag.forcefiles.add(marker_path)
        return paths

    return ancient(of_role)
