"""
What others rely on by its name: figures, settings, errors, paths and headers.

It is read off the running proxy and kept in `tests/public.json`.  `make public` writes
the file again; a name that changes there breaks dashboards and scripts.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import msgspec
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred, succeed
from twisted.python import usage

from abproxy import errors
from abproxy.dialects.openai import OPENAI
from abproxy.dialects.reply import error_reply
from abproxy.dialects.routes import ALIASES, ROUTES, TASKS
from abproxy.dialects.tei import EMBED
from abproxy.errors import ProxyError
from abproxy.events import FlushReason
from abproxy.http.messages import Response, UpstreamRequest
from abproxy.settings.settings import Settings, default_of
from abproxy.settings.sources import variable
from abproxy.workers.aggregate import Aggregator
from abproxy.workers.process import WorkerPool, WorkerProcess
from support.client import Answer
from support.proxy import InMemoryProxy, wired
from support.upstream import reply
from twisted.plugins import abproxy_plugin

__all__ = ["FILE", "SUBJECTS", "read_file"]

FILE = Path(__file__).parent.parent / "tests/public.json"

KEY = "sesame"
SERVERS = "abproxy_server_"
"""What the figures of each of several servers begin with."""

FROM_TEI = ((b"X-Compute-Characters", b"3"), (b"Content-Type", b"application/json"))


def settings() -> dict[str, Any]:
    """Every setting by the name of its variable."""
    return {
        variable(each.metadata["option"]): {
            "option": f"--{each.metadata['option']}",
            "default": default_of(each),
            "unit": each.metadata["unit"],
            "is_secret": not each.repr,
        }
        for each in attrs.fields(Settings)
    }


def commands() -> dict[str, list[str]]:
    """List what `twistd` can start, each with its options."""
    makers = vars(abproxy_plugin).values()
    return {
        maker.tapname: _options(maker.options())
        for maker in makers
        if hasattr(maker, "tapname")
    }


def _options(options: usage.Options) -> list[str]:
    return sorted(f"--{each}" for each in options.longOpt)


def error_words() -> dict[str, list[dict[str, Any]]]:
    """Say for each reason in the metrics what callers get, in both dialects."""
    words: dict[str, list[dict[str, Any]]] = {}
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, ProxyError):
            told, known = _told(kind("why")), words.setdefault(kind.reason, [])
            if told not in known:
                known.append(told)
    return words


def _told(error: ProxyError) -> dict[str, Any]:
    in_tei, in_openai = error_reply(error, EMBED), error_reply(error, OPENAI)
    assert (in_tei.status, in_tei.headers) == (in_openai.status, in_openai.headers)
    return {
        "status": in_tei.status,
        "headers": sorted(name.decode() for name, _ in in_tei.headers),
        "tei": json.loads(in_tei.body or b"null"),
        "openai": json.loads(in_openai.body or b"null"),
    }


def routes() -> dict[str, Any]:
    """Say which paths are batched, and which depend on the model."""
    return {
        "batched": sorted(path.decode() for path in ROUTES),
        "aliases": sorted(path.decode() for path in ALIASES),
        "tasks": {task: route.path.decode() for task, route in TASKS.items()},
    }


def pages() -> list[str]:
    """List the paths that are answered by the proxy itself."""
    with wired() as proxy:
        known: Any = proxy.service.site.operations
        return sorted(path.decode() for path in known.pages)


def metrics() -> dict[str, Any]:
    """Name each figure with its type, and its labels with the values it begins with."""
    with wired() as proxy:
        begins = dict(_families(proxy.ask("GET", "/metrics").body))
    with _busy() as proxy:
        _, body = _result(_aggregator(proxy).metrics(b""))
    with wired(upstream_url="http://a,http://b") as proxy:
        proxy.call("a")
        proxy.answer_all()
        of_servers = proxy.ask("GET", "/metrics").body
    families = {**dict(_families(body)), **dict(_families(of_servers, SERVERS))}
    return {
        name: {
            "type": family.type,
            "labels": _labels(family),
            "begins_with": _values(begins[name]) if name in begins else [],
        }
        for name, family in sorted(families.items())
    }


def _families(text: bytes, begin: str = "abproxy_") -> Iterator[tuple[str, Any]]:
    for family in text_string_to_metric_families(text.decode()):
        if family.name.startswith(begin):
            yield family.name, family


def _labels(family: Any) -> list[str]:
    # The bounds of a histogram are its own, and no names.
    names = {name for sample in family.samples for name in sample.labels}
    return sorted(names - {"le"})


def _values(family: Any) -> list[str]:
    return sorted(
        value
        for sample in family.samples
        for name, value in sample.labels.items()
        if name not in {"le", "version"}
    )


def reasons() -> list[str]:
    """List the reasons for which batches leave, as metrics name them."""
    return sorted(reason.value for reason in FlushReason)


def status() -> dict[str, Any]:
    """Name what status.json holds, two levels deep."""
    with _busy() as proxy:
        document = msgspec.to_builtins(_result(_aggregator(proxy).status(0)))
        of_one_process = proxy.page("/-/status.json")
    assert document.keys() == of_one_process.keys()
    return {name: _names(value) for name, value in sorted(document.items())}


def _names(value: Any) -> list[str]:
    if isinstance(value, list):
        return sorted({name for each in value for name in each})
    return sorted(value) if isinstance(value, dict) else []


def headers() -> dict[str, list[str]]:
    """Name the lines that we add to answers, and to requests for the upstream."""
    return {**_on_answers(), **_on_requests()}


def _on_answers() -> dict[str, list[str]]:
    with wired(api_keys=(KEY,), max_waiting_inputs=4, slots=1) as proxy:
        alone, _, shared = [proxy.call(text, key=KEY) for text in "abc"]
        refused = proxy.call("d", "e", key=KEY)
        _answer_as_tei(proxy)
        _answer_as_tei(proxy)
        shown = ("Authorization", f"Bearer {KEY}")
        answers = {
            "a call alone": alone,
            "a call of a shared batch": shared,
            "without a key": proxy.call("a"),
            "over the limit": refused,
        }
        asked = {
            "a page": proxy.ask("GET", "/-/", b"", shown),
            "json of our own": proxy.ask("GET", "/-/healthy", b"", shown),
            "no such page": proxy.ask("GET", "/-/nothing", b"", shown),
            "a page that is written to": proxy.ask("PUT", "/-/", b"", shown),
            "a page that has moved": proxy.ask("GET", "/-", b"", shown),
            "the form for a key": proxy.ask("GET", "/-/"),
        }
        calls = {name: client.answers()[0] for name, client in answers.items()}
    return {name: _lines(answer) for name, answer in {**calls, **asked}.items()}


def _lines(answer: Answer) -> list[str]:
    return sorted(name for name, _ in answer.headers)


def _on_requests() -> dict[str, list[str]]:
    with wired(upstream_key=KEY, slots=1) as proxy:
        for text in "abc":
            proxy.call(text)
        proxy.answer_all()
        alone, shared = [
            {name.decode() for name, _ in sent.request.headers}
            for sent in proxy.upstream.sent
        ]
    return {
        "a request with a key of ours": sorted(alone),
        "a shared request with a key of ours": sorted(shared),
    }


def _answer_as_tei(proxy: InMemoryProxy) -> None:
    for sent in proxy.upstream.open:
        rows = json.dumps([[1] for _ in sent.inputs]).encode()
        sent.done.callback(reply(200, rows, *FROM_TEI))


@contextmanager
def _busy() -> Iterator[InMemoryProxy]:
    """Give a proxy that has seen a bit of everything, with calls that wait."""
    with wired(slots=1, max_waiting_inputs=2) as proxy:
        proxy.call("a")
        proxy.answer_all()
        proxy.call("b").leave()
        for texts in ("c", "d", "too many"):
            proxy.call(*texts)
        proxy.ask("GET", "/not/known")
        proxy.ask("PUT", "/-/", b"x")
        yield proxy
        proxy.answer_all()


def _aggregator(proxy: InMemoryProxy) -> Aggregator:
    """Make what answers for all workers; this *proxy* is the only one."""

    def send(question: UpstreamRequest) -> Deferred[Response]:
        answer = proxy.ask("GET", question.path.decode())
        return succeed(reply(answer.status, answer.body))

    only: Any = WorkerProcess(
        reactor=proxy.clock,
        name="1",
        folder=Path("/private"),
        port_fd=0,
        settings=Settings(),
    )
    return Aggregator(
        pool=WorkerPool([only]),
        send_to={"1": send},
        clock=proxy.clock,
        settings=Settings(),
    )


def _result(asked: Any) -> Any:
    found: list[Any] = []
    Deferred.fromCoroutine(asked).addBoth(found.append)
    [result] = found
    return result


SUBJECTS: Mapping[str, Callable[[], Any]] = {
    "settings": settings,
    "commands": commands,
    "errors": error_words,
    "routes": routes,
    "pages": pages,
    "metrics": metrics,
    "reasons": reasons,
    "status": status,
    "headers": headers,
}
"""What is kept, and how it is read off the code that runs."""


def read_file() -> Any:
    """Read what is kept."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def _in_lines(public: Mapping[str, Any]) -> str:
    """Write a line for each name, so that a change is seen at once."""
    subjects = (
        f"{json.dumps(subject)}: {_one_a_line(names)}"
        for subject, names in public.items()
    )
    return "{\n" + ",\n".join(subjects) + "\n}\n"


def _one_a_line(names: Any) -> str:
    if isinstance(names, list):
        return "[\n" + ",\n".join(f"  {json.dumps(name)}" for name in names) + "\n]"
    lines = (f"  {json.dumps(name)}: {json.dumps(names[name])}" for name in names)
    return "{\n" + ",\n".join(lines) + "\n}"


if __name__ == "__main__":
    public = {subject: read() for subject, read in SUBJECTS.items()}
    FILE.write_text(_in_lines(public), encoding="utf-8")
