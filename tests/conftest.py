"""Fixtures for every layer; the broker starts only when a test asks for it."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from forebay_local.broker import Broker
from support.broker import Topics, running_broker
from support.pipeline import Pipeline

settings.register_profile("forebay", deadline=None)  # a stalled machine is no failure
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
