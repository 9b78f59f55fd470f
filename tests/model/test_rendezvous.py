"""A port that is somebody else's: the first node's agent ends at once, by the error that the launcher knows. Runs torchrun."""

import os
import socket
import subprocess
import sys

from helpers.processes import LIMIT_S
from scripts.train.failures import RENDEZVOUS_ERROR


def test_an_agent_that_is_told_to_be_the_host_ends_where_its_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        meeting = [
            "--rdzv_backend",
            "c10d",
            "--rdzv_endpoint",
            f"127.0.0.1:{taken.getsockname()[1]}",
            "--rdzv_id",
            "one",
        ]
        finished = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1", *meeting, "-m", "this"],
            env=os.environ | {"PET_RDZV_CONF": "is_host=1"}, capture_output=True, text=True, timeout=LIMIT_S,
        )  # fmt: skip
    assert finished.returncode != 0
    assert RENDEZVOUS_ERROR.search(finished.stderr)
