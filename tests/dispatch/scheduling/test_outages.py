"""What counts as an outage, and how long."""

from lm_deluge.dispatch.scheduling.outages import Outages
from lm_deluge.errors import CertificateError, ConnectError, ServerError, StreamInterruptedError

NOW = 100.0
REFUSED = ConnectError("no connection")


def test_only_who_answered_before_can_be_away() -> None:
    outages = Outages(patience_s=120)
    assert not outages.is_one("m", REFUSED, NOW)
    outages.answered("m")
    assert outages.is_one("m", REFUSED, NOW)
    assert not outages.is_one("other", REFUSED, NOW)


def test_only_a_connection_that_was_not_made_is_an_outage() -> None:
    outages = Outages(patience_s=120)
    outages.answered("m")
    for error in (CertificateError("not to be trusted"), ServerError("m"), StreamInterruptedError("m")):
        assert not outages.is_one("m", error, NOW)


def test_patience_begins_with_the_first_refusal_and_anew_after_an_answer() -> None:
    outages = Outages(patience_s=120)
    outages.answered("m")
    assert outages.is_one("m", REFUSED, NOW)
    assert outages.is_one("m", REFUSED, NOW + 119)
    assert not outages.is_one("m", REFUSED, NOW + 120)
    outages.answered("m")
    assert outages.is_one("m", REFUSED, NOW + 130)
    assert outages.is_one("m", REFUSED, NOW + 249)


def test_waits_grow_to_a_bound() -> None:
    outages = Outages(patience_s=120)
    assert [outages.wait_s(attempt, 1.0) for attempt in (1, 2, 3, 5, 6, 1000)] == [0.5, 1.0, 2.0, 8.0, 10.0, 10.0]
    assert outages.wait_s(6, 0.5) == 5.0
