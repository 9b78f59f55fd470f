"""Where a donor comes from: the sections `donors.vl` and `donors.llm` of the configuration."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

# The keys that each kind needs beside `kind`.
KEYS_OF_KIND = {
    "modelscope": ("id", "revision"),
    "huggingface": ("id", "revision"),
    "local": ("path",),
    "demo": (),
}


@dataclass(frozen=True)
class DonorSource:
    """A model of a hub, a directory of the user's own, or the demo's donor. Fields in the order of the manifest."""

    kind: Literal["modelscope", "huggingface", "local", "demo"]
    id: str | None = None
    path: str | None = None
    revision: str | None = None

    def section(self) -> dict[str, Any]:
        """The keys that are set, as a configuration or a manifest has them."""
        return {key: value for key, value in sorted(asdict(self).items()) if value is not None}

    def findings(self, where: str) -> Iterator[str]:
        """Keys that the kind needs and does not have, and keys that it has no use for; one line each."""
        needed, found = set(KEYS_OF_KIND[self.kind]), self.section().keys() - {"kind"}
        for key in sorted(needed - found):
            yield f"{where}.{key}: missing; kind {self.kind} needs it"
        for key in sorted(found - needed):
            yield f"{where}.{key}: contradicts kind {self.kind}, which has no {key}; remove it or change the kind"
