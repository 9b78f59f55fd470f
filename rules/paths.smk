# Where everything lies, and which file stands for what: read by the rules, decides nothing.
RESULTS = config["results"].rstrip("/")
# What is not declared: training checkpoints, server logs, evaluation records under way. A killed step resumes from there.
WORK = f"work/{RESULTS}"


def result(path):
    """A target of this run."""
    return f"{RESULTS}/{path}"


def named(name, path):
    """`NAME=PATH`, for an option that takes several files and has to tell them apart."""
    return f"{name}={result(path)}"


# Everything in the graft's directory hangs on its ledger, which is written last and holds the sha256 of each tensor.
LEDGER = result("graft/ledger.tsv")
MODEL_PACKAGE = sorted(str(path) for path in Path("model/qwen2_5_vl_qwen3").glob("*.py"))
STAGES = ["stage1", "stage2"]
BENCHMARKS = listed_benchmarks(config["evaluate"])
BACKEND = config["evaluate"]["backend"]
MODELS = config["evaluate"]["models"]
SERVE_ROLE = environment_paths.serving_role(config["evaluate"]["serve"]["backend"])
# The parts of the questions, one a node, where several nodes share them.
NUM_NODES = config["evaluate"]["serve"]["num_nodes"]
SHARES = list(range(NUM_NODES)) if NUM_NODES > 1 else []
# Whose environments a run needs.
ROLES = sorted({"train", "evaluate", SERVE_ROLE})


def donor_name(role):
    """Names the manifest after what decides the weights, so that runs with different donors live side by side."""
    donor = config["donors"][role]
    if donor["kind"] == "demo":
        return f"demo-{role}-seed{config['seed']}"
    if donor["kind"] == "local":
        return f"local-{role}-{Path(donor['path']).name}"
    return "--".join([donor["kind"], *Path(donor["id"]).parts, donor["revision"]])


def donor_dir(role):
    """Where the donor's weights lie: the user's own directory, or ours."""
    donor = config["donors"][role]
    return donor["path"] if donor["kind"] == "local" else f"resources/donors/{donor_name(role)}"


def donor_manifest(role):
    """The record of a donor's files with their checksums."""
    return f"resources/donors/{donor_name(role)}.json"


def donor_time(role):
    """How long it took to make a donor, or to fetch it and record its checksums."""
    how = "made" if config["donors"][role]["kind"] == "demo" else "recorded"
    return f"resources/donors/{donor_name(role)}.{how}.tsv"


DONOR_OF_NAME = {donor_name(role): role for role in ("vl", "llm")}


def donor_files(wildcards):
    """What a donor's manifest is made from, beside the hub: the demo's weights or the user's own files."""
    role = DONOR_OF_NAME[wildcards.donor]
    donor = config["donors"][role]
    if donor["kind"] == "demo":
        return f"resources/donors/{wildcards.donor}/config.json"
    if donor["kind"] == "local":
        return sorted(str(path) for path in Path(donor["path"]).glob("*") if path.suffix in (".json", ".safetensors"))
    return []


def local_datasets(wildcards):
    """The sources that are files, as inputs; the others are ids registered in ms-swift."""
    sources = [source.partition("#")[0] for source in config[wildcards.stage]["datasets"]]
    return [source for source in sources if source.endswith((".jsonl", ".json"))]


def checkpoint_dir(model):
    """Where a model of the table lies."""
    if model == "parent":
        return donor_dir("vl")
    return result("graft") if model == "graft" else result(f"{model}/checkpoint")


def checkpoint_identity(model):
    """The small file that changes with a model's weights."""
    if model == "parent":
        return donor_manifest("vl")
    return LEDGER if model == "graft" else result(f"{model}/metrics.json")


def before(stage):
    """The model that a stage starts from."""
    return "graft" if stage == "stage1" else "stage1"


def stages_up_to(stage):
    """The stages that led to a checkpoint, in order."""
    return STAGES[: STAGES.index(stage) + 1]


def benchmark_tsv(benchmark):
    """The questions."""
    listed = BENCHMARKS[benchmark]
    if listed.own_path and listed.own_path.suffix == ".tsv":
        return str(listed.own_path)
    if listed.own_path and listed.own_path.suffix == ".jsonl":
        return result(f"questions/{benchmark}.tsv")
    return f"resources/benchmarks/{'native/' * (BACKEND == 'native')}{listed.dataset}.tsv"


def benchmark_identity(benchmark):
    """The file that changes with the questions: for a benchmark that is fetched, the record of its checksum."""
    path = Path(benchmark_tsv(benchmark))
    if path.is_relative_to("resources/benchmarks"):
        path = path.with_suffix(".json" if BACKEND == "native" else ".md5")
    return str(path)


def own_list(wildcards):
    """The user's own list of questions, and its pictures."""
    list_path = BENCHMARKS[wildcards.benchmark].own_path
    return [str(path) for path in (list_path, *pictures_named_in(list_path))]


def native_source(dataset):
    """Options that say where EvalScope's native backend finds a dataset: a hub, or the user's snapshot of it."""
    snapshot_dir = next((each.own_path for each in BENCHMARKS.values() if each.dataset == dataset), None)
    hub = config["evaluate"]["native"]["hub"]
    return f"--hub {hub}" + (f" --snapshot-dir {snapshot_dir}" if snapshot_dir else "")
