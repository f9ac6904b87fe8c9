"""What the local broker decides before it starts anything."""

import pytest

from forebay_local.broker import Broker
from forebay_local.java import BrokerError


def test_a_cluster_id_never_looks_like_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([b"\xf8" + bytes(15), b"\x04" + bytes(15)])
    monkeypatch.setattr("secrets.token_bytes", lambda _: next(drawn))
    assert Broker().cluster_id[0] == "B", "the first draw starts with a dash"


def test_a_broker_that_is_not_running_says_so() -> None:
    with pytest.raises(BrokerError, match="not running"):
        Broker().pause()
