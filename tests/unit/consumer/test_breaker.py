import pytest

from forebay_consumer.breaker import Breaker, ModelFails
from forebay_consumer.record import Fault, Outcome, Success
from forebay_schemas import Code, Envelope
from support.consumer import make_record


def outcome(code: Code | None) -> Outcome:
    record, envelope = make_record(), Envelope("id")
    return Success(record, envelope, [], {}) if code is None else Fault(record, envelope, code, "why", "forward")


def outcomes(good: int, bad: int, code: Code = Code.MODEL_ERROR) -> list[Outcome]:
    return [outcome(None)] * good + [outcome(code)] * bad


def test_more_than_the_share_of_a_full_window_stops_the_worker() -> None:
    breaker = Breaker(window=10, share=0.5)
    breaker.check(outcomes(5, 4))
    breaker.check(outcomes(0, 1))
    with pytest.raises(ModelFails, match=r"6 of the last 10 .* retry.breaker_share=0.5"):
        breaker.check(outcomes(0, 1))


def test_few_requests_are_no_evidence() -> None:
    Breaker(window=10, share=0.5).check(outcomes(0, 9))


def test_what_is_longer_ago_than_the_window_is_forgotten() -> None:
    breaker = Breaker(window=4, share=0.5)
    for _ in range(5):
        breaker.check(outcomes(2, 2))


@pytest.mark.parametrize("code", sorted(set(Code) - {Code.MODEL_ERROR, Code.OUT_OF_MEMORY, Code.INTERNAL}))
def test_what_the_requests_are_to_blame_for_is_not_counted(code: Code) -> None:
    Breaker(window=4, share=0.5).check(outcomes(0, 20, code))


def test_what_is_not_counted_hides_no_failure() -> None:
    breaker = Breaker(window=4, share=0.5)
    breaker.check(outcomes(0, 3) + outcomes(0, 100, Code.EXPIRED))
    with pytest.raises(ModelFails, match="4 of the last 4"):
        breaker.check(outcomes(0, 1))


def test_a_share_of_1_never_stops_it() -> None:
    Breaker(window=4, share=1.0).check(outcomes(0, 20))
