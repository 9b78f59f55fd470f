# What a job asks of a cluster, from the recipe; a run without a cluster ignores it. What only the cluster knows
# (partitions, account, memory, walltime) is in slurm/config.yaml.


def calibration_resources():
    """A GPU where the recipe wants the refit on one."""
    return {"gres": "gpu:1"} if config["calibration"]["device"] == "cuda" else {}


def training_resources(stage):
    """Nodes and GPUs of a stage, under the names of Snakemake's Slurm plugin.

    With several nodes the plugin runs the program once, on the first (`mpi`), and the program starts the others itself;
    `tasks_per_gpu: 0` keeps the plugin from asking for a task a GPU. `attempt` is told to the program, which stops when
    submitting again leads nowhere.
    """
    num_nodes = config[stage]["num_nodes"]
    resources = {
        "nodes": num_nodes,
        "gres": f"gpu:{config[stage]['num_processes_per_node']}",
        "attempt": lambda wildcards, attempt: attempt,
    }
    if num_nodes > 1:
        resources |= {"tasks": num_nodes, "tasks_per_gpu": 0, "mpi": "srun"}
    return resources


def serving_resources():
    """One node, with the GPUs of all replicas on it."""
    serve = config["evaluate"]["serve"]
    return {"nodes": 1, "gres": f"gpu:{serve['num_replicas'] * serve['flags'].get('vllm_tensor_parallel_size', 1)}"}
