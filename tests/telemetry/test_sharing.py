"""What keeps calls from sharing is named, with counts, and what would change it."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from twisted.internet.task import Clock

from abproxy.telemetry.sharing import (
    HALF_S,
    LONGEST_NAME,
    MOST_NAMES,
    OTHERS,
    SHOWN,
    RecentCounts,
    Sharing,
    merge_sharing,
)
from support.proxy import InMemoryProxy, wired

CALLS = 120
BURST = 8


@pytest.fixture(params=[True, False], ids=["fast", "Klein"])
def here(request: pytest.FixtureRequest) -> Iterator[InMemoryProxy]:
    """Wire a proxy with one slot, with either way in."""
    paths = frozenset({"server"}) if request.param else frozenset[str]()
    with wired(slots=1, fast_paths=paths) as proxy:
        yield proxy


def _send(here: InMemoryProxy, *lines: tuple[str, str], **members: Any) -> None:
    here.connect().embed(msgspec.json.encode({"inputs": ["a"], **members}), *lines)


def _load(
    here: InMemoryProxy, line: str | None = None, member: str | None = None
) -> None:
    """Send bursts of calls, each with another value of a line or a member."""
    for at in range(CALLS):
        lines = [(line, f"secret-{at}")] if line else []
        members = {member: f"secret-{at}"} if member else {}
        _send(here, *lines, **members)
        if at % BURST == BURST - 1:
            here.answer_all()


def _sharing(here: InMemoryProxy) -> Any:
    return here.status.document()["sharing"]


@pytest.mark.parametrize("name", ["X-Openwebui-User-Id", "Accept-Language"])
def test_a_line_that_each_call_has_of_its_own_is_named(
    here: InMemoryProxy, name: str
) -> None:
    """With the setting that lets calls share, if no answer depends on it."""
    _load(here, line=name)

    verdict = here.status.document()["verdict"]
    assert verdict["text"].startswith(
        f"A request has 1.0 calls: each call has its own `{name}`."
    )
    assert verdict["advice"]["setting"] == f"SHARE_IGNORE={name}"
    [found] = _sharing(here)["apart"]
    assert found == {
        "name": name,
        "times": CALLS - 1,
        "setting": f"SHARE_IGNORE={name}",
    }


def test_a_member_that_each_call_has_of_its_own_is_named(here: InMemoryProxy) -> None:
    """As a setting has it."""
    _load(here, member="user")

    verdict = here.status.document()["verdict"]
    assert "each call has its own `body.user`" in verdict["text"]
    assert verdict["advice"]["setting"] == "SHARE_IGNORE=body.user"


def test_what_sends_calls_alone_is_named(here: InMemoryProxy) -> None:
    """With the setting that lets them share."""
    _load(here, line="Content-Digest")

    status = here.status.document()
    assert "each call has `content-digest`" in status["verdict"]["text"]
    assert status["verdict"]["advice"]["setting"] == "SHARE_IGNORE=content-digest"
    [found] = status["sharing"]["alone"]
    assert (found["name"], found["times"]) == ("content-digest", CALLS)


def test_no_value_is_shown(here: InMemoryProxy) -> None:
    """Names only, in status and log."""
    _load(here, line="X-Forwarded-User")
    _load(here, member="user")

    assert b"secret" not in msgspec.json.encode(here.status.document())
    assert "secret" not in here.status.report()


def test_calls_that_share_keep_nothing_apart(here: InMemoryProxy) -> None:
    """Lines that are ignored are not named."""
    _load(here, line="X-Request-Id")

    assert _sharing(here).keys() == {"apart", "alone", "relayed"}
    assert not any(_sharing(here).values())


def test_paths_that_are_not_batched_are_named(here: InMemoryProxy) -> None:
    """It is not said that there are no calls."""
    for _ in range(30):
        here.ask("POST", "/api/embed", b'{"model":"m","input":"a"}')
    here.ask("POST", "/api/generate", b"{}")
    here.ask("GET", "/api/tags")

    assert here.status.document()["verdict"]["text"] == (
        "Most requests are not batched but relayed one by one: "
        "/api/embed (30), /api/generate (1)."
    )


def test_a_few_relayed_requests_are_not_the_subject(here: InMemoryProxy) -> None:
    """Only if most are."""
    for _ in range(3):
        _send(here)
        here.answer_all()
    here.ask("POST", "/rerank", b"{}")

    text = here.status.document()["verdict"]["text"]
    assert text.startswith("Too few calls to tell")


@pytest.mark.parametrize("path", ["/a?key=secret", "/" + "a" * 80, "/%20secret"])
def test_what_is_no_plain_path_is_not_shown(here: InMemoryProxy, path: str) -> None:
    """A query may hold a key."""
    here.ask("POST", path, b"{}")

    [found] = _sharing(here)["relayed"]
    assert found["path"] in {"/a", OTHERS}


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("X-User-Id", "SHARE_IGNORE=X-User-Id"),
        ("body.user", "SHARE_IGNORE=body.user"),
        ("body.input_type", "SHARE_IGNORE=body.input_type"),
        ("body.dimensions", ""),
        ("Authorization", "INFERENCE_SERVICE_KEY"),
        ("X-Forwarded-User", ""),
        ("X-Acme-Token", ""),
        (OTHERS, ""),
    ],
)
def test_only_what_may_be_ignored_has_a_setting(name: str, setting: str) -> None:
    """A credential, and what changes answers, keep calls apart for good."""
    [found] = Sharing.of({name: 1}, {}, {}).apart

    assert found.setting == setting


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("content-digest", "SHARE_IGNORE=content-digest"),
        ("body.late_chunking", "SHARE_APART=body.late_chunking"),
        ("authorization", ""),
    ],
)
def test_what_sends_alone_may_have_a_setting(name: str, setting: str) -> None:
    """A signature cannot be shared."""
    [found] = Sharing.of({}, {name: 1}, {}).alone

    assert found.setting == setting


def test_memory_is_bounded() -> None:
    """Names are as clients like them."""
    counts = RecentCounts(Clock())

    for at in range(2 * MOST_NAMES):
        counts.add(f"{at}" + "x" * 1000)

    found = counts.lately()
    assert len(found) == SHOWN
    assert found[OTHERS] == MOST_NAMES
    assert max(map(len, found)) <= LONGEST_NAME


def test_old_counts_are_forgotten() -> None:
    """A setting that was changed shows its effect."""
    clock = Clock()
    counts = RecentCounts(clock)
    counts.add("old")
    clock.advance(HALF_S)
    counts.add("new")

    assert counts.lately() == {"old": 1, "new": 1}
    clock.advance(HALF_S)
    assert counts.lately() == {"new": 1}
    clock.advance(2 * HALF_S)
    assert counts.lately() == {}


def test_what_workers_saw_is_added_up() -> None:
    """By name, what counts most first."""
    one = Sharing.of({"a": 1, "b": 2}, {"c": 1}, {"/x": 1}).document()
    other = Sharing.of({"a": 4}, {}, {"/x": 2, "/y": 5}).document()

    assert merge_sharing([one, other]) == Sharing.of(
        {"a": 5, "b": 2}, {"c": 1}, {"/y": 5, "/x": 3}
    )
