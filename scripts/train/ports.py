"""A port of this machine that nobody uses now."""

import socket


def free_port(host: str = "") -> int:
    """Chosen by the kernel; of all addresses, or of one alone. Another program may take it before it is used."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
