"""Fixtures for every layer; the broker starts only when a test asks for it."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from forebay_local.broker import Broker
from support.broker import Topics, running_broker
from support.pipeline import Pipeline

# No deadline: a stalled machine is no failure. The same examples in each run, so that a run that fails fails again;
# others are looked for by `make explore`.
settings.register_profile("forebay", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=2500)
settings.load_profile("forebay")


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    with running_broker() as started:
        yield started


@pytest.fixture
def topics(broker: Broker) -> Iterator[Topics]:
    made = Topics(broker.bootstrap_servers)
    yield made
    made.delete()


@pytest.fixture
def pipeline(broker: Broker, topics: Topics) -> Pipeline:
    return Pipeline(broker.bootstrap_servers, topics)
