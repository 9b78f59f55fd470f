"""Walltimes and signals of the jobs of stages, as a profile has set them."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

_SIGNAL = re.compile(r"--signal=\w+@(\d+)")


def limits_of_jobs(resources: Mapping[str, Mapping[str, Any]], stages: Iterable[str]) -> dict[str, list[int]]:
    """Minutes of walltime, and the seconds before its end at which a trainer is told to save; none without a profile of Slurm."""
    limits = {}
    for stage in stages:
        found = resources.get(stage, {})
        # As they were given: Snakemake evaluates a resource for a job, and there is none yet.
        walltime, extra = (str(getattr(found.get(name), "raw", found.get(name))) for name in ("runtime", "slurm_extra"))
        signal = _SIGNAL.search(extra)
        if walltime.isdigit() and signal:
            limits[stage] = [int(walltime), int(signal.group(1))]
    return limits
