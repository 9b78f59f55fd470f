"""Asks Slurm's commands, none of which may keep a run waiting: each has a time limit."""

import subprocess

ANSWER_LIMIT_S = 60.0


def ask(*command: str, limit_s: float = ANSWER_LIMIT_S) -> tuple[str | None, str]:
    """(what a command prints, ""), or (None, why there is no answer): it is missing, fails or takes too long."""
    try:
        asked = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=limit_s)
    except subprocess.TimeoutExpired:
        return None, f"no answer within {limit_s:.0f} s"
    except OSError as error:
        return None, error.strerror or str(error)
    if asked.returncode:
        return None, " ".join(asked.stderr.split()) or f"exit status {asked.returncode}"
    return asked.stdout, ""


def answer(*command: str) -> str:
    """What a command prints; empty where there is no answer, since it is asked again later."""
    return ask(*command)[0] or ""
