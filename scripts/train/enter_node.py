"""Runs on each node of a training: meets the other nodes, then becomes torchrun's agent with what they found out.

srun starts it (scripts/train/launch.py). The agent ignores signals that everybody gets, as the local one does
(scripts/train/trainer_process.py). The agent of the first node is told that it is the host: if it found out by itself, it
would take any program that listens at that port for the host, and wait.

By hand, in a Slurm job of two nodes, whose first one is node1:
  srun -N2 .venvs/train/bin/python scripts train.enter_node --hosts node1 --port 29500 --num-nodes 2 --word any -- COMMAND
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from scripts.common.errors import UserError, run_program
from scripts.common.logger import log
from scripts.train.meeting import Meeting, Met, PortTaken, meet
from scripts.train.watch_files import WATCH_VARIABLE, Failure, read_watch_settings, write_failure


def agent_environment(met: Met, node_number: int, environment: Mapping[str, str]) -> dict[str, str]:
    """What the agent and its ranks are told; an interface that the user names for gloo stays."""
    interface = {"GLOO_SOCKET_IFNAME": met.interface} if met.interface else {}
    return {
        **interface,
        **environment,
        "PET_RDZV_ENDPOINT": met.endpoint,
        "PET_LOCAL_ADDR": met.address,
        "PET_RDZV_CONF": f"is_host={int(node_number == 0)}",
    }


def record_failure(message: str) -> None:
    """Where the launcher looks for the error of a rank; by hand there is no launcher."""
    if WATCH_VARIABLE in os.environ:
        files = read_watch_settings(Path(os.environ[WATCH_VARIABLE])).files
        write_failure(files, Failure(int(os.environ.get("SLURM_NODEID", "0")), message, True, time.time()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hosts", required=True, nargs="+", help="names and addresses of the first node")
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--num-nodes", required=True, type=int)
    parser.add_argument("--word", required=True, help="the same for all nodes of one start, and for no other")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    node_number = int(os.environ["SLURM_NODEID"])
    name = os.environ.get("SLURMD_NODENAME") or os.uname().nodename
    meeting = Meeting(arguments.hosts, arguments.port, arguments.num_nodes, arguments.word)
    try:
        met = meet(meeting, node_number, name)
    except PortTaken as error:
        sys.exit(f"RendezvousConnectionError: {error}")  # as torchrun says it, for scripts/train/failures.py
    except UserError as error:
        record_failure(f"the nodes could not meet: {error}")
        raise
    log(f"{name}: met the other nodes at {met.address} ({met.interface})")
    sys.stdout.flush()
    os.execvpe(arguments.command[0], arguments.command, agent_environment(met, node_number, os.environ))


if __name__ == "__main__":
    run_program(main)
