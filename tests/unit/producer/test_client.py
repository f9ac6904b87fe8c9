"""What a client does without a broker."""

import os
import threading
from typing import Any

import pytest

from forebay_producer import BadSettings, Client


@pytest.mark.parametrize("lock", ["_lifetime", "_waiting._room"])
def test_a_child_that_closes_waits_for_no_lock_of_its_parent(lock: str) -> None:
    """A thread of the parent's may have held it at the fork, and is not there to let go."""
    client = Client(kafka={"bootstrap.servers": "127.0.0.1:1"})
    client._process = os.getpid() + 1
    held: Any = client
    for name in lock.split("."):
        held = getattr(held, name)
    with held:
        child = threading.Thread(target=client.close, daemon=True)
        child.start()
        child.join(10)
        assert not child.is_alive()


@pytest.mark.parametrize("given", ["localhost:9092", {"kafka": {}}])
def test_settings_that_are_none_are_told(given: Any) -> None:
    with pytest.raises(BadSettings, match=r"settings: expected what forebay_producer\.load gives"):
        Client(given)


def test_the_path_of_a_file_may_be_a_text(tmp_path: Any) -> None:
    with pytest.raises(BadSettings, match="no configuration file at"):
        Client(config=str(tmp_path / "client.yaml"))
