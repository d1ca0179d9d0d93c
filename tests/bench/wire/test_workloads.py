"""What is sent is what the names say."""

import json

import pytest

from bench.wire.workloads import DIFFERENT_CALLS, FULL, QUICK, Workload


@pytest.mark.parametrize("workload", FULL, ids=lambda each: each.name)
def test_a_body_has_its_inputs(workload: Workload) -> None:
    """As JSON, under the name that the route wants."""
    body = json.loads(workload.body(1))

    inputs = body["input" if workload.is_openai else "inputs"]
    assert len(inputs) == workload.inputs


@pytest.mark.parametrize("workload", FULL, ids=lambda each: each.name)
def test_an_answer_has_a_row_for_each_input(workload: Workload) -> None:
    """Each of as many dimensions."""
    answer = json.loads(workload.answer(1))

    rows = answer["data"] if workload.is_openai else answer
    assert len(rows) == workload.inputs
    lengths = {len(row) for row in rows} if not workload.is_openai else {384}
    assert lengths == {workload.dimensions}


def test_no_text_is_sent_twice() -> None:
    """So nothing can be answered from a cache."""
    workload = Workload(name="any")

    texts = [
        text for number in range(DIFFERENT_CALLS) for text in workload.texts(number)
    ]
    assert len(set(texts)) == len(texts)


def test_keys_take_turns() -> None:
    """Every other call has the other key."""
    workload = Workload(name="keys", keys=["a", "b"])

    shown = [b"Bearer a\r\n" in workload.request(number) for number in range(4)]
    assert shown == [True, False, True, False]


def test_without_keys_no_key_is_shown() -> None:
    """Most servers have none."""
    assert b"Authorization" not in Workload(name="any").request(0)


def test_a_request_is_whole() -> None:
    """Its length is that of its body."""
    head, _, body = Workload(name="any").request(0).partition(b"\r\n\r\n")

    assert head.startswith(b"POST /embed HTTP/1.1\r\n")
    assert f"Content-Length: {len(body)}".encode() in head


def test_the_quick_ones_are_among_all() -> None:
    """So the README's rows are in every full run."""
    assert {each.name for each in QUICK} <= {each.name for each in FULL}


def test_names_are_unique() -> None:
    """They are how one chooses."""
    assert len({each.name for each in FULL}) == len(FULL)
