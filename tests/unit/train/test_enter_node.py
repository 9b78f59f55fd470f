"""What a node's agent is told after the meeting, and where the reason stands when the nodes could not meet."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.stage import make_run
from scripts.train.enter_node import agent_environment, record_failure
from scripts.train.failures import RENDEZVOUS_ERROR
from scripts.train.meeting import Met
from scripts.train.start import watch_settings_of
from scripts.train.watch_files import WATCH_VARIABLE, read_first_failure, write_watch_settings

MET = Met("10.87.0.11:29500", "10.87.0.12", "eth0")


@pytest.mark.parametrize(("node_number", "is_host"), [(0, "1"), (1, "0"), (10, "0")])
def test_the_agent_is_told_numbers_and_only_the_first_nodes_is_the_host(node_number: int, is_host: str) -> None:
    environment = agent_environment(MET, node_number, {"PATH": "/bin", "PET_LOCAL_ADDR": "localhost"})
    assert environment == {
        "PATH": "/bin",
        "PET_RDZV_ENDPOINT": "10.87.0.11:29500",
        "PET_LOCAL_ADDR": "10.87.0.12",
        "PET_RDZV_CONF": f"is_host={is_host}",
        "GLOO_SOCKET_IFNAME": "eth0",
    }


def test_an_interface_that_the_user_names_stays_and_an_unknown_one_is_not_named() -> None:
    assert agent_environment(MET, 0, {"GLOO_SOCKET_IFNAME": "ib0"})["GLOO_SOCKET_IFNAME"] == "ib0"
    assert "GLOO_SOCKET_IFNAME" not in agent_environment(Met("a:1", "a", None), 0, {})


def enter(root: Path, node: int, port: int, num_nodes: int, *command: str, **environment: str) -> subprocess.Popen[str]:
    options = ["--hosts", "127.0.0.1", "--port", str(port), "--num-nodes", str(num_nodes), "--word", "w"]
    return subprocess.Popen(
        [sys.executable, "scripts", "train.enter_node", *options, "--", *command], cwd=root, text=True,
        env=os.environ | {"SLURM_NODEID": str(node), "SLURMD_NODENAME": f"node{node + 1}"} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_nodes_that_have_met_become_their_agents(root: Path) -> None:
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    show = ["sh", "-c", "echo $PET_RDZV_ENDPOINT $PET_RDZV_CONF --nnodes $0", "2"]
    nodes = [enter(root, number, port, 2, *show) for number in range(2)]
    said = [node.communicate(timeout=600)[0].split() for node in nodes]
    assert said[0][0] == said[1][0]
    assert [words[1:] for words in said] == [["is_host=1", "--nnodes", "2"], ["is_host=0", "--nnodes", "2"]]


def test_a_port_that_was_taken_meanwhile_is_said_as_torchrun_says_it(root: Path) -> None:
    """So that the launcher tries another one."""
    with socket.create_server(("", 0)) as taken:
        node = enter(root, 0, taken.getsockname()[1], 2, "true")
        _, error = node.communicate(timeout=600)
    assert node.returncode == 1
    assert RENDEZVOUS_ERROR.search(error)


def test_why_the_nodes_could_not_meet_stands_where_the_launcher_looks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    run.watch.path.mkdir(parents=True, exist_ok=True)
    write_watch_settings(watch_settings_of(run, None))
    monkeypatch.setenv(WATCH_VARIABLE, str(run.watch.settings))
    monkeypatch.setenv("SLURM_NODEID", "1")
    record_failure("node2 did not reach the first node")
    failure = read_first_failure(run.watch)
    assert failure is not None and failure.is_user_error
    assert (failure.rank, failure.message) == (1, "node2 did not reach the first node")
    monkeypatch.delenv(WATCH_VARIABLE)
    record_failure("by hand there is no launcher")
