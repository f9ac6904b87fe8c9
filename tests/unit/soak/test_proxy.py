"""The soak's network, on sockets of this machine."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from soak.proxy import DEAF, REFUSE, SWALLOW, Proxy


@contextmanager
def connected() -> Iterator[tuple[Proxy, socket.socket, socket.socket, socket.socket]]:
    """A proxy, the client's end of a connection through it, the server's end, and the listening server."""
    with socket.create_server(("127.0.0.1", 0)) as server, Proxy(server.getsockname()[1]) as proxy:
        server.settimeout(10)
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
            end, _ = server.accept()
            with end:
                end.settimeout(10)
                yield proxy, client, end, server


def is_silent(end: socket.socket) -> bool:
    end.settimeout(0.2)
    try:
        end.recv(10)
    except TimeoutError:
        return True
    finally:
        end.settimeout(10)
    return False


def is_gone(end: socket.socket) -> bool:
    try:
        return end.recv(10) == b""
    except ConnectionResetError:
        return True


def test_an_open_proxy_passes_both_ways() -> None:
    with connected() as (_, client, end, _):
        client.sendall(b"ask")
        assert end.recv(10) == b"ask"
        end.sendall(b"answer")
        assert client.recv(10) == b"answer"
        end.close()
        assert is_gone(client)


def test_a_refusing_proxy_resets_and_takes_nobody() -> None:
    with connected() as (proxy, client, end, _):
        proxy.cut(REFUSE)
        assert is_gone(client)
        assert is_gone(end)
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as other:
            assert is_gone(other)


def test_what_is_swallowed_comes_after_the_heal() -> None:
    with connected() as (proxy, client, end, _):
        proxy.cut(SWALLOW)
        client.sendall(b"ask")
        end.sendall(b"answer")
        assert is_silent(end)
        assert is_silent(client)
        proxy.heal()
        assert end.recv(10) == b"ask"
        assert client.recv(10) == b"answer"


def test_a_deaf_client_is_heard_and_never_answered() -> None:
    with connected() as (proxy, client, end, _):
        proxy.cut(DEAF)
        client.sendall(b"ask")
        assert end.recv(10) == b"ask"
        end.sendall(b"answer")
        assert is_silent(client)
        proxy.heal()
        assert is_gone(client)


def test_a_healed_proxy_takes_new_connections() -> None:
    with connected() as (proxy, _, _, server):
        proxy.cut(REFUSE)
        proxy.heal()
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
            end, _ = server.accept()
            with end:
                client.sendall(b"ask")
                assert end.recv(10) == b"ask"


def test_an_unknown_way_is_refused() -> None:
    with connected() as (proxy, _, _, _), pytest.raises(ValueError, match="no way to cut"):
        proxy.cut("slow")
