"""Where Snakemake, and the programs that it starts, write temporary files."""

import os
import tempfile
from pathlib import Path


def leave_full_directory() -> None:
    """Sets TMPDIR to another directory where the usual one cannot be used.

    Snakemake's scheduler, which runs in each job of Slurm as well, writes to TMPDIR or /tmp and dies where that is full. Python
    finds another one (/var/tmp, the working directory). Raises FileNotFoundError where none can be written.
    """
    if tempfile.gettempdir() != str(Path(os.environ.get("TMPDIR") or "/tmp").absolute()):
        os.environ["TMPDIR"] = tempfile.gettempdir()
