"""The live page in a real browser, while calls come and go."""

from collections.abc import Iterator

import pytest

from support.browser import LivePage, embed, status
from support.processes import load


@pytest.fixture
def busy(experienced: str, page: LivePage) -> Iterator[LivePage]:
    """Let calls come while a test looks."""
    with load(experienced):
        page.until(lambda: page.text("helps") == "Yes")
        yield page


def _judged(page: LivePage) -> int:
    """Read how many calls the verdict goes by."""
    return int(page.text("judged").split()[2].replace(",", ""))


def test_figures_move_and_are_those_of_the_proxy(busy: LivePage) -> None:
    """What is shown lies between what the proxy said before and after."""
    before = status(busy.url)["verdict"]["calls"]
    busy.until(lambda: _judged(busy) > before)

    shown = _judged(busy)
    busy.until(lambda: _judged(busy) > shown)

    assert before < shown <= status(busy.url)["verdict"]["calls"]
    assert float(busy.figures("now")["calls/s"].replace(",", "")) > 0


def test_nothing_goes_wrong_while_it_is_looked_at(busy: LivePage) -> None:
    """The console of the browser stays empty."""
    busy.open_everything()
    looks = busy.looks
    busy.until(lambda: busy.looks > looks + 2)

    assert busy.console == []


def test_what_is_shown_does_not_jump_about(busy: LivePage) -> None:
    """Figures change in their places, and nothing is pushed aside."""
    busy.look_with(height=3000)
    busy.script("""
        window.jumps = 0;
        new PerformanceObserver((list) => {
            for (const shift of list.getEntries()) window.jumps += shift.value;
        }).observe({ type: "layout-shift" });""")

    looks = busy.looks
    busy.until(lambda: busy.looks > looks + 3)

    assert busy.script("return window.jumps") < 0.01


def test_nothing_moves_by_itself(busy: LivePage) -> None:
    """There is no animation that somebody could wish away."""
    assert busy.script("return document.getAnimations().length") == 0


def test_the_verdict_is_the_first_thing_to_read(
    experienced: str, page: LivePage
) -> None:
    """Three questions, each with the proxy's own answer, on the first screen."""
    page.until(lambda: page.text("because") == status(experienced)["verdict"]["text"])
    verdict = status(experienced)["verdict"]

    assert page.text("helps") == "Yes"
    assert (
        page.text("advice") == (verdict["advice"] or {"setting": "Nothing"})["setting"]
    )
    gain = page.figures("gain")["calls in a request"]
    assert float(gain) == pytest.approx(verdict["calls_per_request"], abs=0.1)
    assert page.lower_edge("judged") < 900


@pytest.mark.parametrize("limit", ["slot", "budget", "upstream"])
def test_what_limits_is_shown_as_a_share_of_time(page: LivePage, limit: str) -> None:
    """In a number and a bar, for each thing that may keep a batch."""
    page.look_at({"verdict": {f"{limit}_limited": 0.374}})

    assert (
        page.script("return document.getElementById(a).value", f"by-{limit}") == 0.374
    )
    assert page.text(f"by-{limit}-text") == "37 %"


def test_batches_are_drawn_as_high_as_they_are_full(page: LivePage) -> None:
    """Each is a bar, coloured by why it left, the newest at the right."""
    embed(page.url, *"a")
    embed(page.url, *"abcdefgh")
    embed(page.url, *"abcdefghijklmnopqrstuvwxyzABCDEF")

    page.until(lambda: _bars(page)[-3:] == [("free", 1), ("free", 8), ("full", 32)])


def _bars(page: LivePage) -> list[tuple[str, int]]:
    script = """
        const full = Number(document.querySelector("#sizes-scale > span").textContent);
        return [...document.querySelectorAll("#sizes rect")].map((bar) => [
            bar.className.baseVal,
            Math.round(bar.height.baseVal.value * full / 100)]);"""
    return [(reason, inputs) for reason, inputs in page.script(script)]


def test_plots_can_be_read_as_tables(busy: LivePage) -> None:
    """Who does not see them, or wants the numbers, unfolds them."""
    busy.open_everything()

    busy.until(lambda: float(busy.rows("rates-rows")[0][1]) > 0)

    route, why = busy.rows("sizes-rows")[0][1:3]
    assert route == "/embed"
    assert why in {"full", "slot free"}


def test_what_keeps_calls_from_sharing_is_named(page: LivePage) -> None:
    """By lines and members, with what would change it, and by paths."""
    line = {"name": "X-User-Id", "times": 1200, "setting": "SHARE_IGNORE=X-User-Id"}
    member = {"name": "body.late_chunking", "times": 3, "setting": ""}
    relayed = [{"path": "/api/embed", "times": 7}]

    page.look_at({"sharing": {"apart": [line], "alone": [member], "relayed": relayed}})

    assert page.rows("sharing") == [
        ["X-User-Id", "apart", "1,200", "SHARE_IGNORE=X-User-Id"],
        ["body.late_chunking", "alone", "3", ""],
    ]
    assert page.text("relayed") == "Relayed without batching: /api/embed (7)."
