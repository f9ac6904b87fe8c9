"""A real Apache Kafka on this machine: one KRaft node, no Docker, no Java to install by hand."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from forebay_local.java import BrokerError, find_java, kafka_jars

READY_WITHIN_S: Final = 60.0
STOP_WITHIN_S: Final = 20.0
ATTEMPTS: Final = 3

_SETTINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "log.cleaner.dedupe.buffer.size": "16777216",
    }
)
# Reads one line that never comes: its end of file is our death, however sudden.
_UNDERTAKER: Final = 'read -r _; kill -9 "$1" 2>/dev/null; [ -z "$2" ] || rm -rf "$2"'


class PortTaken(BrokerError):
    """Another process listens on the port."""


class Broker:
    """One broker. Cheap to make; `start` blocks until it answers. A context manager. Not thread-safe.

    Args:
        port: where clients connect on 127.0.0.1; None picks a free one, and keeps it over a restart.
        data: folder for logs; None makes a temporary one and deletes it at `stop`.
        settings: broker settings over the defaults.
        heap_mb: the heap of the Java process.
        proxy_port: makes a second listener, on `proxied_port`, whose clients are told to come to this port instead:
            to a proxy that passes them on.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        data: Path | None = None,
        settings: Mapping[str, str] | None = None,
        heap_mb: int = 512,
        proxy_port: int | None = None,
    ) -> None:
        self._given_port = port
        self._port = port
        self._known = False  # once it has answered, clients may know the port
        self._given_data = data
        self._settings = dict(settings or {})
        self._heap_mb = heap_mb
        self._controller_port: int | None = None
        self._proxy_port = proxy_port
        self._proxied_port: int | None = None
        self._data: Path | None = None
        self._cluster_id = _new_cluster_id()
        self._process: subprocess.Popen[bytes] | None = None
        self._undertaker: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        if self._port is None:
            raise BrokerError("the broker has no port before its first start")
        return self._port

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def proxied_port(self) -> int:
        """Where a proxy at `proxy_port` must connect to."""
        if self._proxied_port is None:
            raise BrokerError("the broker has no listener behind a proxy, or was not started yet")
        return self._proxied_port

    @property
    def cluster_id(self) -> str:
        return self._cluster_id

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def alive(self) -> bool:
        """Whether its process runs, be it stopped by `pause`."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, and block until our own process answers with our own cluster id.

        Raises:
            BrokerError: it died or did not answer in time; the message ends with the end of its log.
        """
        for attempt in range(ATTEMPTS):
            try:
                self._start()
            except PortTaken:
                # Between looking for a free port and binding it, another process may take it; a port that clients
                # know already is worth waiting for, one that we chose is not worth keeping.
                if self._given_port is not None or attempt == ATTEMPTS - 1:
                    raise
                if not self._known:
                    self._port = None
                self._controller_port = None
                self._proxied_port = None
            else:
                return

    def _start(self) -> None:
        self._port = self._port or _free_port()
        self._controller_port = self._controller_port or _free_port()
        if self._proxy_port is not None:
            self._proxied_port = self._proxied_port or _free_port()
        if self._data is None:
            self._data = self._given_data or Path(tempfile.mkdtemp(prefix="forebay-broker-"))
            self._data.mkdir(parents=True, exist_ok=True)
        properties = self._write_properties(self._data)
        java = [str(find_java()), "-XX:TieredStopAtLevel=1", f"-Xmx{self._heap_mb}m"]
        java += ["-Dorg.slf4j.simpleLogger.logFile=System.out", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        java += ["-cp", os.pathsep.join(map(str, kafka_jars()))]
        self._dismiss_undertaker()  # of a process that ended by itself
        try:
            self._format(java, properties)
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [*java, "kafka.Kafka", str(properties)], stdout=log, stderr=log, start_new_session=True
                )
            self._undertaker = subprocess.Popen(
                ["sh", "-c", _UNDERTAKER, "undertaker", str(self._process.pid), self._temporary],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
            self._wait_ready()
            self._known = True
        except BaseException:
            self._end()
            if not self._known:
                self._discard()
            raise

    def stop(self) -> None:
        """End the process, by SIGTERM and then by force, and delete a temporary folder. Again has no effect."""
        self._end()
        self._discard()

    def kill(self) -> None:
        """SIGKILL; the data stay, and `start` brings the same broker back."""
        process = self._running()
        process.kill()
        process.wait()
        self._process = None
        self._dismiss_undertaker()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, and nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._running().send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Kill, and start again on the same port and data."""
        self.kill()
        self.start()

    def wait(self) -> int:
        """Block until the process ends by itself; its exit code."""
        return self._running().wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # ---- inside

    def _end(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        self._dismiss_undertaker()

    def _discard(self) -> None:
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._data = None

    @property
    def _log(self) -> Path:
        assert self._data is not None
        return self._data / "broker.log"

    @property
    def _temporary(self) -> str:
        return str(self._data) if self._data is not None and self._given_data is None else ""

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise BrokerError("the broker is not running")
        return self._process

    def _dismiss_undertaker(self) -> None:
        if self._undertaker is not None:
            self._undertaker.kill()
            self._undertaker.wait()
            assert self._undertaker.stdin is not None
            self._undertaker.stdin.close()
            self._undertaker = None

    def _write_properties(self, data: Path) -> Path:
        bound = {"PLAINTEXT": self._port, "CONTROLLER": self._controller_port}
        advertised = {"PLAINTEXT": self._port}
        if self._proxy_port is not None:
            bound["PROXIED"], advertised["PROXIED"] = self._proxied_port, self._proxy_port
        settings = {
            **_SETTINGS,
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in bound),
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "listeners": _listeners(bound),
            "advertised.listeners": _listeners(advertised),
            "log.dirs": str(data / "logs"),
            **self._settings,
        }
        path = data / "server.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        return path

    def _format(self, java: list[str], properties: Path) -> None:
        """Give an empty folder our cluster id; a folder of an earlier start keeps its own."""
        known = properties.parent / "logs" / "meta.properties"
        if known.exists():
            entries = dict(line.split("=", 1) for line in known.read_text().splitlines() if "=" in line)
            self._cluster_id = entries["cluster.id"]
            return
        command = [*java, "kafka.tools.StorageTool", "format", "-t", self._cluster_id, "-c", str(properties)]
        formatted = subprocess.run([*command, "--ignore-formatted"], capture_output=True, text=True, check=False)
        if formatted.returncode:
            raise BrokerError(f"the broker's folder could not be formatted:\n{formatted.stdout}{formatted.stderr}")

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        admin: Any = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0}, logger=_silent())
        while time.monotonic() < deadline:
            if (code := self._running().poll()) is not None:
                end = self._log_end()
                kind = PortTaken if "Address already in use" in end or "BindException" in end else BrokerError
                raise kind(f"the broker on port {self._port} ended with code {code}; its log ends:\n{end}")
            try:
                # Another broker may answer on a port that ours could not bind.
                if admin.list_topics(timeout=0.5).cluster_id == self._cluster_id:
                    return
            except KafkaException:
                continue
        raise BrokerError(f"the broker did not answer within {READY_WITHIN_S:.0f} s; its log ends:\n{self._log_end()}")

    def _log_end(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])


def _new_cluster_id() -> str:
    """16 random bytes in URL-safe base64; never with a leading dash, which Kafka's tools read as an option."""
    while (made := urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")).startswith("-"):
        pass
    return made


def _listeners(ports: Mapping[str, int | None]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _silent() -> Any:
    import logging

    logger = logging.getLogger("forebay_local.probe")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger
