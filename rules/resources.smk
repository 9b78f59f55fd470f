# What a job asks of a cluster, from the configuration; a run without a cluster ignores all but `gpu_machine`. What depends on
# the cluster (partitions, account, memory, walltime) is in slurm/config.yaml.

# Without a cluster, one step at a time uses this machine's GPUs: a server takes most of their memory, a training uses them all.
workflow.global_resources.setdefault("gpu_machine", 1)


def gpu_machine(wildcards):
    """1 for a step that would use this machine's own GPUs; 0 on a cluster, where Slurm divides them, and without GPUs."""
    return int(workflow.local_exec and may_have_gpus(os.environ))


def calibration_resources():
    """A GPU if the configuration has the refit on one."""
    return {"gres": "gpu:1", "gpu_machine": gpu_machine} if config["calibration"]["device"] == "cuda" else {}


def training_resources(stage):
    """Nodes and GPUs of a stage, under the names of Snakemake's Slurm plugin.

    With several nodes the plugin runs the program once, on the first (`mpi`), and the program starts the others itself;
    `tasks_per_gpu: 0` keeps the plugin from asking for a task a GPU. The program gets `attempt`, and stops when
    submitting it again does not help.
    """
    num_nodes = config[stage]["num_nodes"]
    resources = {
        "nodes": num_nodes,
        "gres": f"gpu:{config[stage]['num_processes_per_node']}",
        "gpu_machine": gpu_machine,
        "attempt": lambda wildcards, attempt: attempt,
    }
    if num_nodes > 1:
        resources |= {"tasks": num_nodes, "tasks_per_gpu": 0, "mpi": "srun"}
    return resources


def serving_resources():
    """One node, with the GPUs of all replicas on it."""
    serve = config["evaluate"]["serve"]
    num_gpus = serve["num_replicas"] * serve["flags"].get("vllm_tensor_parallel_size", 1)
    return {"nodes": 1, "gres": f"gpu:{num_gpus}", "gpu_machine": gpu_machine}
