"""Nodes that meet, and meetings that do not come about; a thread of this machine stands in for each node."""

import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from scripts.common.errors import UserError
from scripts.train import meeting
from scripts.train.meeting import Meeting, Met, PortTaken, interface_of, meet, own_addresses

LIMIT_S = 120.0


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture
def plan() -> Meeting:
    return Meeting(["no-such-host.invalid", "127.0.0.1"], free_port(), 2, "this-start", LIMIT_S)


Came = dict[int, Met | Exception]


def all_come(plan: Meeting, numbers: Sequence[int]) -> Came:
    """What each of the nodes comes to."""
    came: Came = {}

    def come(number: int) -> None:
        try:
            came[number] = meet(plan, number, f"node{number + 1}")
        except (UserError, PortTaken) as error:
            came[number] = error

    threads = [threading.Thread(target=come, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=LIMIT_S)
    assert len(came) == len(numbers)
    return came


@pytest.mark.parametrize("num_nodes", [2, 4])
def test_all_nodes_learn_one_place_by_its_number_and_each_its_own_address(plan: Meeting, num_nodes: int) -> None:
    came = all_come(replace(plan, num_nodes=num_nodes), range(num_nodes))
    [endpoint] = {met.endpoint for met in came.values() if isinstance(met, Met)}
    assert len(came) == num_nodes
    assert endpoint.startswith("127.0.0.1:") and endpoint != f"127.0.0.1:{plan.port}"
    assert {(met.address, met.interface) for met in came.values() if isinstance(met, Met)} == {("127.0.0.1", "lo")}


def test_an_address_that_every_node_has_is_preferred_to_the_loopback() -> None:
    assert own_addresses()[-1] == "127.0.0.1"
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("198.51.100.7") is None


def test_a_first_node_that_nobody_reaches_ends_all_with_what_was_tried(plan: Meeting) -> None:
    came = all_come(replace(plan, hosts=["no-such-host.invalid", "127.0.0.1"], port=free_port(), limit_s=1.0), [1])
    message = str(came[1])
    assert message.startswith("node2 (") and "127.0.0.1 (lo)" in message
    assert "did not reach the first node within 1.0 s at port" in message
    assert "no-such-host.invalid (" in message and "127.0.0.1 ([Errno 111] Connection refused)" in message
    assert "num_nodes: 1" in message


def test_a_node_that_does_not_come_is_missed_by_all_that_came(plan: Meeting) -> None:
    came = all_come(replace(plan, num_nodes=3, limit_s=3.0), [0, 1])
    for error in came.values():
        assert isinstance(error, UserError)
        assert "waited 3.0 s for 2 other nodes at port" in str(error)
        assert "found: node2 (127.0.0.1)" in str(error)


def test_nodes_that_do_not_reach_each_other_are_named(plan: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        meeting, "_unreached", lambda name, address, others: [f"{name} does not reach it"] if others else []
    )
    came = all_come(replace(plan, num_nodes=3), range(3))
    messages = {str(error) for error in came.values()}
    assert len(messages) == 1
    assert "nodes cannot reach each other: node" in messages.pop()


def test_a_port_that_is_somebody_elses_is_told_apart(plan: Meeting) -> None:
    with socket.create_server(("", 0)) as taken:
        came = all_come(replace(plan, port=taken.getsockname()[1]), [0])
    assert isinstance(came[0], PortTaken)


def listener(answer: Callable[[socket.socket], None]) -> tuple[socket.socket, threading.Thread]:
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                answer(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return server, thread


def test_another_program_at_the_port_is_not_taken_for_the_first_node(plan: Meeting) -> None:
    server, _ = listener(lambda connection: connection.sendall(b'{"word": "another-start"}\n'))
    with server:
        came = all_come(replace(plan, port=server.getsockname()[1], limit_s=1.0), [1])
    assert "127.0.0.1 (another program answers)" in str(came[1])


def test_a_stranger_at_the_first_nodes_port_is_turned_away_and_the_others_meet(plan: Meeting) -> None:
    strangers: list[bytes] = []

    def knock() -> None:
        for said in (b"GET / HTTP/1.0\n\n", b'{"word": "another-start", "name": "x"}\n', b"[1]\n"):
            while True:
                try:
                    with socket.create_connection(("127.0.0.1", plan.port), timeout=LIMIT_S) as connection:
                        connection.sendall(said)
                        strangers.append(connection.recv(100))
                    break
                except OSError:
                    continue

    host = threading.Thread(target=lambda: came.update(all_come(plan, [0])))
    came: Came = {}
    host.start()
    knock()
    came.update(all_come(plan, [1]))
    host.join(timeout=LIMIT_S)
    assert strangers == [b""] * 3
    assert all(isinstance(met, Met) for met in came.values()) and len(came) == 2
