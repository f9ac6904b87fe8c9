"""One broker to harm for all fault tests; it is mended after each."""

from collections.abc import Iterator

import pytest

from support.place import Place, running_place


@pytest.fixture(scope="session")
def shared_place() -> Iterator[Place]:
    with running_place() as place:
        yield place


@pytest.fixture
def place(shared_place: Place) -> Iterator[Place]:
    yield shared_place
    shared_place.mend()
