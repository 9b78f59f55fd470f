"""How the nodes of a training find each other: by what works on all of them, tried before ms-swift is started.

A node's own name is no address for the others: its hosts file may say `127.0.0.1 localhost node1`, or its full name may be
known to itself alone. torch would announce such a name, and the other ranks would wait for it for ever. So the first node
waits for the others at every address that it has, the others try each of these, and the nodes try each other. What all of
them reached is used, as a number. A meeting that does not come about ends in minutes, with what was tried.
"""

import json
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import psutil

from scripts.common.errors import UserError
from scripts.common.units import duration
from scripts.train.ports import free_port

MEETING_LIMIT_S = 300.0
_TRY_LIMIT_S = 5.0  # of one attempt to reach one address
_PAUSE_S = 0.5
_MAX_LINE_BYTES = 1 << 20


class PortTaken(Exception):
    """Another program has taken the port since it was chosen; another one will do."""


@dataclass(frozen=True)
class Meeting:
    """What every node is told: where the first one waits, how many come, and a word that proves who is meant."""

    hosts: Sequence[str]  # names and addresses of the first node, the likeliest first
    port: int
    num_nodes: int
    word: str
    limit_s: float = MEETING_LIMIT_S


@dataclass(frozen=True)
class Met:
    """What a node knows after the meeting."""

    endpoint: str  # ADDRESS:PORT at which torch's agents meet
    address: str  # of this node, which the others have reached
    interface: str | None  # that has this address


def _interfaces() -> dict[str, str]:
    """{IPv4 address: network interface} of this machine."""
    each = psutil.net_if_addrs().items()
    return {found.address: name for name, all_of in each for found in all_of if found.family == socket.AF_INET}


def own_addresses() -> list[str]:
    """The IPv4 addresses of this machine, those of the loopback last."""
    return [*(address for address in _interfaces() if not address.startswith("127.")), "127.0.0.1"]


def interface_of(address: str) -> str | None:
    """The network interface that has an address."""
    return _interfaces().get(address)


class _Line:
    """A connection over which one JSON value a line goes each way."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._read = b""

    def send(self, value: Mapping[str, Any]) -> None:
        self.connection.sendall(json.dumps(value).encode() + b"\n")

    def receive(self, limit_s: float) -> dict[str, Any]:
        """Raises OSError or ValueError where none comes, or something else does."""
        deadline = time.monotonic() + limit_s
        while b"\n" not in self._read:
            self.connection.settimeout(max(0.01, deadline - time.monotonic()))
            part = self.connection.recv(65536)
            if not part:
                raise ConnectionError("the connection was closed")
            self._read += part
            if len(self._read) > _MAX_LINE_BYTES:
                raise ValueError("a line without end")
        line, _, self._read = self._read.partition(b"\n")
        value = json.loads(line)
        if not isinstance(value, dict):
            raise ValueError("no section of keys")
        return value


@dataclass(frozen=True)
class _Guest:
    """Another node, as the first one knows it."""

    name: str
    line: _Line
    address: str
    port: int  # where it waits for the other nodes
    reached: Sequence[str]  # the first node's addresses, as numbers


def meet(meeting: Meeting, node_number: int, name: str) -> Met:
    """Meets the other nodes; `node_number` 0 is the first one. Raises UserError saying what was tried, and PortTaken."""
    return _as_host(meeting, name) if node_number == 0 else _as_guest(meeting, name)


def _as_host(meeting: Meeting, name: str) -> Met:
    deadline = time.monotonic() + meeting.limit_s
    with ExitStack() as stack:
        try:
            listening = stack.enter_context(socket.create_server(("", meeting.port)))
        except OSError as error:
            raise PortTaken(f"port {meeting.port} of {name}: {error.strerror}") from None
        guests = _wait_for_guests(meeting, name, listening, deadline, stack)
        common = [each for each in own_addresses() if all(each in guest.reached for guest in guests)]
        if not common:
            tried = "; ".join(f"{guest.name} reached {', '.join(guest.reached)}" for guest in guests)
            _end_all(guests, fault := f"no address of {name} is reached by all nodes: {tried}; {_remedy()}")
            raise UserError(fault)
        port = free_port()
        places = [{"name": guest.name, "address": guest.address, "port": guest.port} for guest in guests]
        for number, guest in enumerate(guests):
            guest.line.send({"endpoint": common[0], "port": port, "places": places, "number": number})
        faults = []
        for guest in guests:
            try:
                answer = guest.line.receive(meeting.limit_s)
                faults += answer.get("faults", [])
            except (OSError, ValueError) as error:
                faults.append(f"{guest.name} ({guest.address}) was lost: {error}")
        if faults:
            _end_all(guests, fault := f"nodes cannot reach each other: {'; '.join(faults)}; {_remedy()}")
            raise UserError(fault)
        for guest in guests:
            guest.line.send({"go": True})
    return Met(f"{common[0]}:{port}", common[0], interface_of(common[0]))


def _wait_for_guests(
    meeting: Meeting, name: str, listening: socket.socket, deadline: float, stack: ExitStack
) -> list[_Guest]:
    guests: dict[str, _Guest] = {}
    while len(guests) < meeting.num_nodes - 1:
        listening.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            connection, (address, *_) = listening.accept()
        except TimeoutError:
            came = ", ".join(f"{guest.name} ({guest.address})" for guest in guests.values()) or "none"
            fault = (
                f"{name} waited {duration(meeting.limit_s)} for {meeting.num_nodes - 1} other nodes at port {meeting.port} of "
                f"{', '.join(_with_interfaces(own_addresses()))}; found: {came}; {_remedy()}"
            )
            _end_all(guests.values(), fault)
            raise UserError(fault) from None
        stack.enter_context(connection)
        line = _Line(connection)
        try:
            said = line.receive(_TRY_LIMIT_S)
            if said.get("word") != meeting.word:
                connection.close()  # somebody else's
                continue
            line.send({"word": meeting.word})
            if "name" in said:
                guests[said["name"]] = _Guest(said["name"], line, address, said["port"], said["reached"])
        except (OSError, ValueError, KeyError):
            connection.close()
    return list(guests.values())


def _end_all(guests: Iterable[_Guest], fault: str) -> None:
    for guest in guests:
        with suppress(OSError):
            guest.line.send({"fault": fault})


def _as_guest(meeting: Meeting, name: str) -> Met:
    deadline = time.monotonic() + meeting.limit_s
    with ExitStack() as stack:
        waiting = stack.enter_context(socket.create_server(("", 0)))
        line = _join(meeting, name, waiting.getsockname()[1], deadline, stack)
        address = line.connection.getsockname()[0]
        try:
            plan = line.receive(max(_TRY_LIMIT_S, deadline - time.monotonic()) + _TRY_LIMIT_S)
            if "fault" in plan:
                raise UserError(plan["fault"])
            others = plan["places"][plan["number"] + 1 :]
            line.send({"faults": list(_unreached(name, address, others))})
            end = line.receive(meeting.limit_s)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{name} ({address}) lost the first node in the middle of the meeting ({error}); {_remedy()}"
            ) from None
        if "fault" in end:
            raise UserError(end["fault"])
    return Met(f"{plan['endpoint']}:{plan['port']}", address, interface_of(address))


def _unreached(name: str, address: str, others: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Which of the other nodes this one cannot reach; each pair is tried once. They answer nothing: a connection is enough."""
    for other in others:
        try:
            socket.create_connection((other["address"], other["port"]), timeout=_TRY_LIMIT_S).close()
        except OSError as error:
            interface = interface_of(address) or "no interface"
            yield f"{name} ({address}, {interface}) does not reach {other['name']} at {other['address']} ({error})"


def _join(meeting: Meeting, name: str, own_port: int, deadline: float, stack: ExitStack) -> _Line:
    """The connection to the first node, of which all addresses were tried."""
    while True:
        reached, faults = [], []
        for host in meeting.hosts:
            address, fault = _try(meeting, host)
            reached += [address] if address else []
            faults += [f"{host} ({fault})"] if fault else []
        if reached:
            connection = stack.enter_context(socket.create_connection((reached[0], meeting.port), timeout=_TRY_LIMIT_S))
            line = _Line(connection)
            line.send({"word": meeting.word, "name": name, "port": own_port, "reached": list(dict.fromkeys(reached))})
            with suppress(OSError, ValueError):
                line.receive(_TRY_LIMIT_S)
                return line
        if time.monotonic() > deadline:
            raise UserError(
                f"{name} ({', '.join(_with_interfaces(own_addresses()))}) did not reach the first node within "
                f"{duration(meeting.limit_s)} at port {meeting.port} of {'; '.join(faults)}; {_remedy()}"
            )
        time.sleep(_PAUSE_S)


def _try(meeting: Meeting, host: str) -> tuple[str | None, str | None]:
    """(address reached as a number, None), or (None, why not)."""
    try:
        with socket.create_connection((host, meeting.port), timeout=_TRY_LIMIT_S) as connection:
            line = _Line(connection)
            line.send({"word": meeting.word})
            if line.receive(_TRY_LIMIT_S).get("word") != meeting.word:
                return None, "another program answers"
            return connection.getpeername()[0], None
    except (OSError, ValueError) as error:
        return None, str(error)


def _with_interfaces(addresses: Iterable[str]) -> list[str]:
    return [f"{address} ({interface_of(address)})" for address in addresses]


def _remedy() -> str:
    return (
        "expected each node to reach the others by TCP; ask the cluster's support which network joins its nodes, or train on "
        "one node (num_nodes: 1)"
    )
