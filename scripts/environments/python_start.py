"""What Python does first in each of our environments: a build copies this file into them (scripts/environments/building.py).

A program keeps the directory that it was started in when the environment's name gets another one. Snakemake and the libraries run
also where the user id has no name, or the home directory cannot be written, as in many containers and on some compute nodes; and
warnings stay warnings.
"""

import os
import pwd
import sys
from pathlib import Path

# In the working directory, instead of a home directory: caches of libraries.
OWN_HOME = ".cache/home"


def keep_directory() -> None:
    """Replaces the environment's name by its directory where modules and children are looked for.

    `sys.prefix` keeps the name: the module `site`, which is at work now, would add the packages a second time.
    """
    named, real = sys.prefix, os.path.realpath(sys.prefix)

    def kept(path: str) -> str:
        return real + path[len(named) :] if path.startswith(named + "/") else path

    sys.path[:] = map(kept, sys.path)
    sys.executable = kept(sys.executable)


def provide_user_and_home() -> None:
    """Sets USER and HOME where nothing else tells them, or HOME cannot be written."""
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        home = "/nonexistent"
        os.environ.setdefault("USER", f"uid{os.getuid()}")
    home = os.environ.get("HOME") or home
    if os.access(home, os.W_OK | os.X_OK):
        os.environ["HOME"] = home
        return
    if os.access(f"{home}/.cache/huggingface/token", os.R_OK):
        os.environ.setdefault("HF_TOKEN_PATH", f"{home}/.cache/huggingface/token")
    os.environ["HOME"] = str(Path(OWN_HOME).absolute())


def keep_warnings_harmless() -> None:
    """Takes back what PYTHONWARNINGS demands, which makes errors of other people's warnings."""
    if os.environ.pop("PYTHONWARNINGS", None):
        import warnings

        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)


if __name__ == "_vlgraft_start":
    keep_directory()
    provide_user_and_home()
    keep_warnings_harmless()
