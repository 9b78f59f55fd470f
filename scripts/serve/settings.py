"""The section `evaluate.serve`: how a checkpoint is served, to an evaluation or to a person."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

# The name that the published recipe serves under.
DEFAULT_SERVED_NAME = "Qwen3-VL"

# Set by scripts/serve/command.py from the rest of the settings. A port may be chosen.
OWNED_FLAGS = frozenset({"model", "model_type", "template", "external_plugins", "infer_backend", "host", "check_model"})

# What a request does not say, ms-swift takes from these flags, and else from the checkpoint's generation_config.json: there
# the parent of Qwen2.5-VL has repetition_penalty 1.05, and a graft what its language donor has.
DECODING_FLAGS = ("repetition_penalty", "top_k", "top_p")

# Flags, by their beginnings, with which `swift deploy` loads other weights than the checkpoint's.
CHANGES_THE_MODEL = ("adapters", "quant_")


@dataclass(frozen=True)
class ServeSettings:
    """A server of `swift deploy`, its replicas on one node, and the nodes that share the questions."""

    backend: Literal["transformers", "vllm"]
    num_replicas: int
    num_nodes: int
    environment: Mapping[str, str | int | float]
    flags: Mapping[str, Any]  # of `swift deploy`
    startup_timeout_s: float

    def findings(self, where: str) -> Iterator[str]:
        """Settings that contradict each other or our own, a line each."""
        for flag in sorted(self.flags.keys() & OWNED_FLAGS):
            yield f"{where}.flags.{flag}: set by vlgraft itself from the rest of the configuration; remove it here"
        for flag in DECODING_FLAGS:
            if self.flags.get(flag) is None:
                yield (
                    f"{where}.flags.{flag}: not set, so that each checkpoint's generation_config.json would decide, and the "
                    "models of a table would be asked in different ways; set it (neutral: repetition_penalty 1.0, top_k -1, "
                    "top_p 1.0)"
                )
        yield from self._decoding_findings(f"{where}.flags")
        for flag in sorted(flag for flag in self.flags if flag.startswith(CHANGES_THE_MODEL)):
            yield f"{where}.flags.{flag}: another model than the checkpoint would be asked; remove it, or export that model first"
        if self.backend != "vllm":
            for flag in sorted(flag for flag in self.flags if flag.startswith("vllm_")):
                yield f"{where}.flags.{flag}: contradicts backend {self.backend}; remove it or set backend: vllm"
        for flag in sorted(flag for flag in self.flags if flag.startswith(("sglang_", "lmdeploy_"))):
            yield f"{where}.flags.{flag}: contradicts backend {self.backend}; remove it"
        if self.num_replicas > 1 and "port" in self.flags:
            yield f"{where}.flags.port: contradicts num_replicas above 1, which need a port each; remove it"

    def _decoding_findings(self, where: str) -> Iterator[str]:
        """Values that no server takes, found when the first one answers, after both trainings."""
        for flag, least, most in (("repetition_penalty", 0, None), ("top_p", 0, 1)):
            value = self.flags.get(flag)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (is_number and least < value <= (most or value)):
                limit = f", up to {most}" if most else ""
                yield f"{where}.{flag}: {value!r} found; expected a number above {least}{limit}"
        top_k = self.flags.get("top_k")
        if top_k is not None and (type(top_k) is not int or top_k < -1):
            yield f"{where}.top_k: {top_k!r} found; expected a whole number from -1 (all tokens) on"

    @property
    def served_name(self) -> str:
        """What requests call the model."""
        return str(self.flags.get("served_model_name", DEFAULT_SERVED_NAME))

    @property
    def port(self) -> int | None:
        """None: the kernel chooses a free one."""
        return self.flags.get("port")
