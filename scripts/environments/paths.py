"""Where each role's environment is."""

from collections.abc import Mapping


def environment_dir(environments: Mapping[str, str], role: str) -> str:
    """Below the repository's root; `environments` is the section of the configuration, which names the one that trains."""
    name = environments["train"] if role == "train" else role
    return f".venvs/{name}" if environments["kind"] == "venv" else f".venvs/image/{name}"


def serving_role(backend: str) -> str:
    """The role whose environment serves by a backend: ms-swift with vLLM is one of its own."""
    return "serve" if backend == "vllm" else "train"
