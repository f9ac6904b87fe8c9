"""A broker to harm, with a proxy in front; the session's broker serves everybody else."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from forebay_local.broker import Broker
from support.broker import Topics, running_broker
from support.pipeline import Pipeline
from support.proxy import Proxy


@dataclass(frozen=True)
class Place:
    """The tests see the broker as it is, the workers of `pipeline` see it through `proxy`."""

    broker: Broker
    proxy: Proxy

    def pipeline(self) -> Pipeline:
        servers = self.broker.bootstrap_servers
        return Pipeline(servers, Topics(servers), worker_bootstrap=self.proxy.bootstrap_servers)

    def mend(self) -> None:
        """End every fault."""
        self.proxy.heal()
        if self.broker.alive:
            self.broker.resume()
        else:
            self.broker.start()


@contextmanager
def running_place() -> Iterator[Place]:
    with Proxy(lambda: place.broker.proxied_port) as proxy:
        with running_broker(proxy_port=proxy.port) as broker:
            place = Place(broker, proxy)
            yield place
