"""vLLM's view of the grafted architecture: the entry point `vllm.general_plugins` of this package's pyproject.toml.

vLLM calls `register` in each of its processes, wherever this package is installed. Importing the package has by then told
transformers the configuration's class, so `--trust-remote-code` is not needed. vLLM itself is imported by none of this.
"""

ARCHITECTURE = "Qwen2_5_VLQwen3ForConditionalGeneration"

# The series whose tokens tests/serving compares with those of transformers.
TESTED_VLLM = "0.32"


def register() -> None:
    """Names the class to vLLM, as a string: vLLM imports it when a checkpoint asks for it, and not before."""
    from vllm import ModelRegistry

    ModelRegistry.register_model(ARCHITECTURE, f"qwen2_5_vl_qwen3.vllm_model:{ARCHITECTURE}")


def require_tested_vllm(version: str) -> None:
    """Raises ImportError for another series of vLLM than the tested one: vllm_model.py is bound to vLLM's inside."""
    if not version.startswith(f"{TESTED_VLLM}."):
        raise ImportError(
            f"qwen2_5_vl_qwen3: vLLM {version} found, {TESTED_VLLM} expected, for which this package's vLLM class was made; "
            f"install vllm=={TESTED_VLLM}.*, or start vLLM with `--model-impl transformers --trust-remote-code`"
        )
