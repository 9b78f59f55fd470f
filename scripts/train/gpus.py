"""GPUs of this machine, by its device files: without a driver, without imports."""

from collections.abc import Mapping
from pathlib import Path

# What the drivers of NVIDIA (also under WSL) and AMD leave in /dev.
GPU_DEVICE_NODES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


def may_have_gpus(inherited: Mapping[str, str]) -> bool:
    """Whether a child with this environment may see a GPU."""
    if "CUDA_VISIBLE_DEVICES" in inherited:
        return bool(visible_gpus(inherited))
    return any(Path(node).exists() for node in GPU_DEVICE_NODES)


def visible_gpus(inherited: Mapping[str, str]) -> list[str]:
    """The GPUs that a child would see, by the names that CUDA_VISIBLE_DEVICES has for them; none on a CPU."""
    if (chosen := inherited.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [device for device in chosen.split(",") if device not in ("", "-1")]
    found = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
    return sorted(found, key=int)
