"""The soak's broker: one listener for the harness, and one that workers reach only through the proxy."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from forebay_local.broker import Broker, PortTaken
from soak.proxy import Proxy
from support.broker import SHORT_CLOCKS

ATTEMPTS: Final = 3


@contextmanager
def running_cluster() -> Iterator[tuple[Broker, Proxy]]:
    """A broker and the proxy before its second listener.

    `Broker.bootstrap_servers` is the way of the harness and knows no cut; workers start at the proxy's port, and the
    broker sends them there again and again, since that is the address it advertises on that listener.
    """
    for attempt in range(ATTEMPTS):
        port, behind, controller = _free_ports(3)
        with Proxy(behind) as proxy:
            broker = Broker(port=port, settings={**SHORT_CLOCKS, **_listeners(port, behind, proxy.port, controller)})
            try:
                broker.start()
            except PortTaken:  # taken between looking and binding
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            try:
                yield broker, proxy
            finally:
                broker.stop()
            return


def _listeners(port: int, behind: int, proxied: int, controller: int) -> dict[str, str]:
    host = "127.0.0.1"
    return {
        "listeners": f"PLAINTEXT://{host}:{port},WORKERS://{host}:{behind},CONTROLLER://{host}:{controller}",
        "advertised.listeners": f"PLAINTEXT://{host}:{port},WORKERS://{host}:{proxied}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,WORKERS:PLAINTEXT",
        "controller.quorum.voters": f"1@{host}:{controller}",
    }


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
