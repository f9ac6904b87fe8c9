"""A broker that asks who you are: SASL, TLS, mutual TLS and OAuth beside a plain listener for the tests themselves.

Whoever comes by the plain listener is a super user; everybody else may do only what an ACL grants.
"""

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import serialization

from forebay_local.broker import Broker
from support.broker import SHORT_CLOCKS, warm_up

PASSWORD: Final = "correct-horse-battery"
PLAIN_USERS: Final = ("worker", "client", "nobody")
_JAAS: Final = "org.apache.kafka.common.security"
_LISTENERS: Final[Mapping[str, str]] = {
    "PLAINTEXT": "PLAINTEXT",
    "CONTROLLER": "PLAINTEXT",
    "SASL": "SASL_PLAINTEXT",
    "OAUTH": "SASL_PLAINTEXT",
    "SASLTLS": "SASL_SSL",
    "MTLS": "SSL",
}
READ: Final = AclOperation.READ
WRITE: Final = AclOperation.WRITE
DESCRIBE: Final = AclOperation.DESCRIBE
TOPIC: Final = ResourceType.TOPIC
GROUP: Final = ResourceType.GROUP
TRANSACTIONAL_ID: Final = ResourceType.TRANSACTIONAL_ID


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files: the authority's, and a client's that it signed, for `CN=worker`."""

    authority: Path
    certificate: Path
    key: Path
    stranger: Path  # an authority that signed nothing here


class SecureBroker:
    """Addresses, users and ACLs of the running broker."""

    def __init__(self, ports: Mapping[str, int], certificates: Certificates) -> None:
        self._ports = ports
        self.certificates = certificates
        self.bootstrap_servers = self.servers("PLAINTEXT")
        self._admin: Any = AdminClient({"bootstrap.servers": self.bootstrap_servers})

    def servers(self, listener: str) -> str:
        return f"localhost:{self._ports[listener]}"

    def sasl(self, user: str, password: str = PASSWORD, mechanism: str = "PLAIN") -> dict[str, Any]:
        return {
            "bootstrap.servers": self.servers("SASL"),
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": mechanism,
            "sasl.username": user,
            "sasl.password": password,
        }

    def sasl_tls(self, user: str, password: str = PASSWORD, mechanism: str = "SCRAM-SHA-512") -> dict[str, Any]:
        return {
            **self.sasl(user, password, mechanism),
            "bootstrap.servers": self.servers("SASLTLS"),
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(self.certificates.authority),
        }

    def mutual_tls(self) -> dict[str, Any]:
        """As `CN=worker`."""
        return {
            "bootstrap.servers": self.servers("MTLS"),
            "security.protocol": "SSL",
            "ssl.ca.location": str(self.certificates.authority),
            "ssl.certificate.location": str(self.certificates.certificate),
            "ssl.key.location": str(self.certificates.key),
        }

    def oauth(self) -> dict[str, Any]:
        """Without the method, or the function, that gets the token."""
        return {
            "bootstrap.servers": self.servers("OAUTH"),
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "OAUTHBEARER",
        }

    def grant(self, user: str, grants: Sequence["Grant"]) -> None:
        bindings = [
            AclBinding(kind, name, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, AclPermissionType.ALLOW)
            for kind, name, operation in grants
        ]
        for future in self._admin.create_acls(bindings, request_timeout=30).values():
            future.result()

    def revoke(self, user: str, granted: "Grant") -> None:
        kind, name, operation = granted
        found = AclBindingFilter(
            kind, name, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, AclPermissionType.ALLOW
        )
        for future in self._admin.delete_acls([found], request_timeout=30).values():
            assert len(future.result()) == 1

    def add_scram_user(self, user: str) -> None:
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):  # Kafka takes one a request
            wanted = UserScramCredentialUpsertion(user, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode())
            for future in self._admin.alter_user_scram_credentials([wanted], request_timeout=30).values():
                future.result()


Grant = tuple[ResourceType, str, AclOperation]


@contextmanager
def running_secure_broker(folder: Path) -> Iterator[SecureBroker]:
    """Start one, with its certificates in `folder`."""
    ports = dict(zip(_LISTENERS, _free_ports(len(_LISTENERS)), strict=True))
    certificates = _make_certificates(folder)
    with Broker(port=ports["PLAINTEXT"], settings={**SHORT_CLOCKS, **_settings(ports, folder)}):
        secure = SecureBroker(ports, certificates)
        for user in PLAIN_USERS:
            secure.add_scram_user(user)
        warm_up(secure.bootstrap_servers)
        yield secure


def _settings(ports: Mapping[str, int], folder: Path) -> dict[str, str]:
    users = " ".join(f'user_{user}="{PASSWORD}"' for user in PLAIN_USERS)
    login = {
        "plain": f"{_JAAS}.plain.PlainLoginModule required {users};",
        "scram-sha-256": f"{_JAAS}.scram.ScramLoginModule required;",
        "scram-sha-512": f"{_JAAS}.scram.ScramLoginModule required;",
    }
    settings = {
        "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in _LISTENERS.items()),
        "listeners": ",".join(f"{name}://127.0.0.1:{ports[name]}" for name in _LISTENERS),
        "advertised.listeners": ",".join(
            f"{name}://localhost:{ports[name]}" for name in _LISTENERS if name != "CONTROLLER"
        ),
        "controller.quorum.voters": f"1@127.0.0.1:{ports['CONTROLLER']}",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "connection.failed.authentication.delay.ms": "10",
        # With no validator named, Kafka takes unsigned tokens: enough to see that ours arrive.
        "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.oauth.oauthbearer.sasl.jaas.config": f"{_JAAS}.oauthbearer.OAuthBearerLoginModule required;",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / "authority.pem"),
        "listener.name.mtls.ssl.client.auth": "required",
        "listener.name.mtls.ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/",
    }
    for listener in ("sasl", "sasltls"):
        settings[f"listener.name.{listener}.sasl.enabled.mechanisms"] = ",".join(login).upper()
        for mechanism, module in login.items():
            settings[f"listener.name.{listener}.{mechanism}.sasl.jaas.config"] = module
    return settings


def _make_certificates(folder: Path) -> Certificates:
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    stranger.cert_pem.write_to_path(folder / "stranger.pem")
    broker = authority.issue_cert("localhost", "127.0.0.1")
    (folder / "broker.pem").write_bytes(_pkcs8(broker) + b"".join(part.bytes() for part in broker.cert_chain_pems))
    worker = authority.issue_cert("worker.invalid", common_name="worker")
    (folder / "worker.pem").write_bytes(b"".join(part.bytes() for part in worker.cert_chain_pems))
    (folder / "worker.key").write_bytes(_pkcs8(worker))
    return Certificates(folder / "authority.pem", folder / "worker.pem", folder / "worker.key", folder / "stranger.pem")


def _pkcs8(leaf: trustme.LeafCert) -> bytes:
    """The one form of a key that Kafka reads."""
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _free_ports(count: int) -> list[int]:
    """All at once, so that none is drawn twice."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
