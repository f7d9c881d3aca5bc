"""Which requests a fault befalls."""

from __future__ import annotations

import pytest

from controller.emulator.faults import Endpoint, Fault, FaultName, Faults, alter_page, hidden_users
from controller.emulator.users import UserQuery


def met(faults: Faults, requests: int, endpoint: Endpoint = Endpoint.LIST) -> list[int]:
    """Return which of the next requests, counted from 1, meet a fault."""
    return [number for number in range(1, requests + 1) if faults.meet(endpoint)]


def test_a_fault_without_parameters_befalls_every_request() -> None:
    faults = Faults()
    faults.switch_on(Fault(FaultName.SERVER_ERROR))
    assert all(faults.meet(endpoint) for endpoint in Endpoint)


def test_a_fault_of_page_three_once_befalls_the_third_request_alone() -> None:
    faults = Faults()
    faults.switch_on(Fault(FaultName.SERVER_ERROR, endpoint=Endpoint.LIST, page=3, times=1))
    faults.meet(Endpoint.COUNT)
    assert met(faults, 6) == [3]


def test_a_fault_with_times_ends_after_so_many_requests() -> None:
    faults = Faults()
    faults.switch_on(Fault(FaultName.SERVER_ERROR, page=2, times=2))
    assert met(faults, 6) == [2, 3]


def test_a_fault_without_times_goes_on() -> None:
    faults = Faults()
    faults.switch_on(Fault(FaultName.SERVER_ERROR, page=3))
    assert met(faults, 6) == [3, 4, 5, 6]


def test_a_fault_of_users_befalls_requests_that_name_them() -> None:
    faults = Faults()
    faults.switch_on(Fault(FaultName.SERVER_ERROR, endpoint=Endpoint.LOOKUP, ids=frozenset({"user_a"})))
    assert not faults.meet(Endpoint.LOOKUP, ["user_b"])
    assert faults.meet(Endpoint.LOOKUP, ["user_a"])


def test_hiding_befalls_listing_filter_count_and_look_up() -> None:
    faults = Faults()
    faults.switch_on(Fault(FaultName.HIDE_USERS, ids=frozenset({"user_a"})))
    reached = {endpoint for endpoint in Endpoint if faults.meet(endpoint)}
    assert reached == {Endpoint.LIST, Endpoint.FILTER, Endpoint.COUNT, Endpoint.LOOKUP}


def test_hiding_from_one_endpoint_leaves_the_others() -> None:
    faults = Faults()
    faults.switch_on(Fault(FaultName.HIDE_USERS, endpoint=Endpoint.LIST, ids=frozenset({"user_a"})))
    assert hidden_users(faults.meet(Endpoint.LIST)) == {"user_a"}
    assert hidden_users(faults.meet(Endpoint.LOOKUP, ["user_a"])) == frozenset()


def test_a_fault_that_is_switched_off_befalls_nothing() -> None:
    faults = Faults()
    number = faults.switch_on(Fault(FaultName.SERVER_ERROR))
    faults.switch_off(number)
    assert met(faults, 3) == []
    with pytest.raises(LookupError):
        faults.switch_off(number)


def test_clearing_switches_all_off() -> None:
    faults = Faults()
    faults.switch_on(Fault(FaultName.SERVER_ERROR))
    faults.switch_on(Fault(FaultName.RESET))
    faults.clear()
    assert faults.on == {}
    assert met(faults, 3) == []


@pytest.mark.parametrize(
    ("name", "altered"),
    [
        (FaultName.EMPTY_LIST, []),
        (FaultName.SHORT_PAGE, ["d", "c"]),
        (FaultName.ORDER_BREAK, ["a", "c", "b", "d"]),
        (FaultName.DUPLICATE_ID, ["e", "d", "c", "b"]),
        (FaultName.SLOW, ["d", "c", "b", "a"]),
    ],
)
def test_faults_of_a_page_alter_its_users(name: FaultName, altered: list[str]) -> None:
    query = UserQuery(limit=4, starting_after="e")
    assert alter_page([Fault(name)], ["d", "c", "b", "a"], query) == altered


def test_a_first_page_repeats_a_user_of_its_own() -> None:
    assert alter_page([Fault(FaultName.DUPLICATE_ID)], ["b", "a"], UserQuery(limit=10)) == ["b", "b", "a"]
