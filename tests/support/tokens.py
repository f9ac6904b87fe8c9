"""OAuth tokens that the tests' broker takes: unsigned, for the subject that is asked for."""

import base64
import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

LIFETIME_S: Final = 300


def unsigned(subject: str, lifetime_s: int = LIFETIME_S) -> str:
    now = int(time.time())
    return f"{_encoded({'alg': 'none'})}.{_encoded({'sub': subject, 'iat': now, 'exp': now + lifetime_s})}."


def fetch(config: str) -> tuple[str, float]:
    """For `oauth_cb`; `sasl.oauthbearer.config` is the subject."""
    return unsigned(config), time.time() + LIFETIME_S


def refuse(config: str) -> tuple[str, float]:
    raise OSError("the token server is away")


class TokenEndpoint:
    """Gives tokens to whoever has the secret, on a loopback port. A context manager.

    Attributes:
        secret: may be changed meanwhile.
        refused: how often it gave none.
    """

    def __init__(self, secret: str, lifetime_s: int = LIFETIME_S) -> None:
        endpoint = self
        self.secret = secret
        self.asked = self.refused = 0

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                endpoint.asked += 1
                self.rfile.read(int(self.headers["Content-Length"]))
                client, _, given = base64.b64decode(self.headers["Authorization"].split()[1]).decode().partition(":")
                allowed = given == endpoint.secret
                endpoint.refused += not allowed
                token = {"access_token": unsigned(client, lifetime_s), "token_type": "bearer", "expires_in": lifetime_s}
                body = json.dumps(token if allowed else {"error": "invalid_client"}).encode()
                self.send_response(200 if allowed else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's word
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def settings(self, client: str, secret: str) -> dict[str, Any]:
        return {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.client.id": client,
            "sasl.oauthbearer.client.secret": secret,
            "sasl.oauthbearer.token.endpoint.url": f"http://127.0.0.1:{self._server.server_port}/token",
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _encoded(part: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
