"""
Requests of every kind, for Hypothesis: good, nearly good, and noise.

Most are for the batched routes, with few different options, so that several
drawn together meet in one lane.
"""

import json
from collections.abc import Sequence
from typing import Any

from attrs import frozen
from hypothesis import strategies as st

from support.recorded import exchanges
from web.bytemodel import DIMENSIONS, MAX_TOKENS, TOKENS

JSON = ("Content-Type", "application/json")


@frozen(kw_only=True)
class Drawn:
    """One request."""

    method: str = "POST"
    path: str
    headers: tuple[tuple[str, str], ...] = (JSON,)
    body: bytes = b""
    is_chunked: bool = False

    def __bytes__(self) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: server"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        body = self.body
        if self.is_chunked:
            lines.append("Transfer-Encoding: chunked")
            pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
            body = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces)
            body += b"0\r\n\r\n"
        else:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


# Values.

texts = st.one_of(
    st.sampled_from(["a", "b", "What is Vector Search?"[:MAX_TOKENS], "é", "\n", "]"]),
    st.text(min_size=1, max_size=MAX_TOKENS // 4),
)
odd_texts = st.one_of(
    st.sampled_from(["", "x" * (MAX_TOKENS + 1), "\x00", "\ud800", '"],["', "😀" * 5]),
    st.text(max_size=40),
)
ids = st.lists(st.integers(0, TOKENS - 1), min_size=1, max_size=4)
odd_ids = st.lists(
    st.sampled_from([0, 1, -1, TOKENS, 2**32, 1.0, 1.5, True, None, "a", [1]]),
    max_size=3,
)
item = st.one_of(texts, ids)
odd_item = st.one_of(item, odd_texts, odd_ids, st.none(), st.integers(), st.floats())
inputs = st.one_of(texts, st.lists(item, min_size=1, max_size=10), ids)
odd_inputs = st.one_of(odd_texts, odd_ids, st.lists(odd_item, max_size=4), odd_item)

flags = st.sampled_from([True, False])
odd = st.one_of(
    st.none(),
    flags,
    st.sampled_from([0, 1, -1, 1.0, 1e400, "", "right", "LEFT", "base64", [], {}]),
)
OPTIONS = {
    "truncate": st.sampled_from([None, True, False]),
    "truncation_direction": st.sampled_from(["right", "Right", "left", "Left"]),
    "prompt_name": st.sampled_from([None, "query", ""]),
    "normalize": flags,
    "dimensions": st.sampled_from([None, 1, 2, DIMENSIONS, DIMENSIONS + 1, 0]),
    "encoding_format": st.sampled_from(["float", "base64"]),
    "model": st.sampled_from([None, "m", "bytes"]),
    "user": st.sampled_from([None, "u"]),
    "add_special_tokens": flags,
    "skip_special_tokens": flags,
    "raw_scores": flags,
    "parameters": st.just({"truncate": True}),
}
ITEMS = {
    "/embed": "inputs",
    "/": "inputs",
    "/invocations": "inputs",
    "/embed_all": "inputs",
    "/embed_sparse": "inputs",
    "/predict": "inputs",
    "/tokenize": "inputs",
    "/decode": "ids",
    "/v1/embeddings": "input",
    "/embeddings": "input",
}


# Bodies.


Members = list[tuple[str, Any]]
"""The members of a body, as pairs: a name may stand there twice."""


@st.composite
def options(draw: st.DrawFn) -> Members:
    """Draw a few options."""
    names = draw(st.lists(st.sampled_from(sorted(OPTIONS)), max_size=2, unique=True))
    return [(name, draw(OPTIONS[name])) for name in names]


@st.composite
def members(
    draw: st.DrawFn, name: str, chosen: st.SearchStrategy[Members] | None = None
) -> Members:
    """Draw the members of a good body."""
    values = st.one_of(ids, st.lists(ids, min_size=1, max_size=4))
    found = draw(values if name == "ids" else inputs)
    return [(name, found), *draw(options() if chosen is None else chosen)]


@st.composite
def odd_members(draw: st.DrawFn, name: str) -> Members:
    """Draw the members of a body of which something may be wrong."""
    names = st.sampled_from([name, "x", "inputs", *OPTIONS])
    good = st.tuples(st.just(name), st.one_of(inputs, odd_inputs))
    found = draw(st.lists(st.one_of(good, st.tuples(names, odd)), max_size=3))
    return [*found, *draw(options())]


@st.composite
def spelled(draw: st.DrawFn, pairs: st.SearchStrategy[Members]) -> bytes:
    """Spell the drawn members as JSON, in one of the ways there are."""
    space = draw(st.sampled_from(["", " ", "\n\t"]))
    is_ascii = draw(flags)

    def spell(value: Any) -> str:
        return json.dumps(
            value, ensure_ascii=is_ascii, separators=(f"{space},", f":{space}")
        )

    written = f",{space}".join(
        f"{space}{spell(name)}{space}:{spell(value)}" for name, value in draw(pairs)
    )
    return f"{space}{{{written}}}{space}".encode("utf-8", "surrogatepass")


@st.composite
def mutated(draw: st.DrawFn, bodies: st.SearchStrategy[bytes]) -> bytes:
    """Draw a body and damage it in a few places."""
    body = bytearray(draw(bodies))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body)))
        end = draw(st.integers(at, min(len(body), at + 9)))
        put = st.one_of(
            st.binary(max_size=3),
            st.sampled_from([b"[", b"]", b"{", b"}", b'"', b",", b"null", b"\\", b"1"]),
            st.just(bytes(body[at:end]) * 2),
        )
        body[at:end] = draw(put)
    return bytes(body)


# Requests.

RECORDED = [
    Drawn(
        method=each.method,
        path=each.path,
        headers=tuple(
            (name, value)
            for name, value in each.headers
            if name.lower() not in {"host", "content-length", "connection"}
        ),
        body=each.body,
    )
    for each in exchanges()
    if len(each.body) < 4000 and each.path != "/metrics"
]

kinds = st.sampled_from(
    [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/vnd.api+json",
        "application/json; charset=latin-1",
        "application/jsonx",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "multipart/form-data",
        "",
    ]
)
token = st.text("abcXYZ-_09", min_size=1, max_size=8)
extra_headers = st.one_of(
    st.sampled_from(
        [
            ("Authorization", "Bearer a"),
            ("Authorization", "Basic b"),
            ("User-Agent", "x"),
            ("X-Request-Id", "1"),
            ("Origin", "http://page"),
            ("Accept-Encoding", "gzip, deflate"),
            ("Accept", "text/html"),
            ("Range", "bytes=0-1"),
            ("If-None-Match", "*"),
            ("Expect", "100-continue"),
            ("Connection", "close"),
            ("Connection", "keep-alive, x-a"),
            ("Keep-Alive", "timeout=1"),
            ("TE", "trailers"),
            ("Upgrade", "h2c"),
            ("Content-Encoding", "identity"),
            ("X-HTTP-Method-Override", "GET"),
            ("Cookie", "a=b"),
            ("Host", "other"),
            ("X-Empty", ""),
            ("X-Latin", "\xe9"),
        ]
    ),
    st.tuples(token.map("X-{}".format), st.text("abc ;,=\xe4", max_size=6)),
)


@st.composite
def headers(draw: st.DrawFn) -> tuple[tuple[str, str], ...]:
    """Draw header lines, most often those of JSON."""
    found = draw(st.lists(extra_headers, max_size=3))
    types = draw(st.one_of(st.just("application/json"), kinds).map(lambda kind: [kind]))
    return tuple(draw(st.permutations([("Content-Type", t) for t in types] + found)))


PATHS = (
    *ITEMS,
    "/embed/",
    "//embed",
    "/embed?x=1",
    "/?",
    "/%65mbed",
    "/EMBED",
    "/embed;x",
    "/./embed",
    "/../embed",
    "/v1//embeddings",
    "/info",
    "/health",
    "/rerank",
    "/similarity",
    "/v1/models",
    "/|",
)


def _is_a_servers(path: str) -> bool:
    """Whether a path is none of the proxy's own, and treq's test agent keeps it."""
    loses_its_end = path.endswith(("?", ";")) or ";?" in path
    return not path.startswith(("/-/", "/-?")) and path != "/-" and not loses_its_end


paths = st.one_of(
    st.sampled_from(PATHS),
    st.text(
        st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"),
        max_size=10,
    )
    .map(lambda text: f"/{text}")
    .filter(_is_a_servers),
)
METHODS = ("POST", "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "post", "BREW")


routes = st.sampled_from(sorted(ITEMS))


@st.composite
def good(
    draw: st.DrawFn,
    path: str | None = None,
    chosen: st.SearchStrategy[Members] | None = None,
) -> Drawn:
    """Draw a request that is as it should be, or asks a little too much."""
    path = path or draw(routes)
    return Drawn(path=path, body=draw(spelled(members(ITEMS[path], chosen))))


@st.composite
def nearly_good(
    draw: st.DrawFn,
    path: str | None = None,
    chosen: st.SearchStrategy[Members] | None = None,
) -> Drawn:
    """Draw a request of which something is not as it should be."""
    path = path or draw(routes)
    name = ITEMS[path]
    chosen = options() if chosen is None else chosen
    bad = st.tuples(odd_inputs, chosen).map(lambda two: [(name, two[0]), *two[1]])
    bodies = st.one_of(
        spelled(bad),
        spelled(odd_members(name)),
        mutated(spelled(members(name, chosen))),
        spelled(members(name, chosen)).map(lambda body: body + b"x"),
    )
    return Drawn(path=path, body=draw(bodies), is_chunked=draw(flags))


@st.composite
def recorded(draw: st.DrawFn) -> Drawn:
    """Draw a request that real clients and testers have sent, perhaps damaged."""
    found = draw(st.sampled_from(RECORDED))
    body = draw(st.one_of(st.just(found.body), mutated(st.just(found.body))))
    return Drawn(method=found.method, path=found.path, headers=found.headers, body=body)


@st.composite
def noise(draw: st.DrawFn) -> Drawn:
    """Draw any method, path, header lines and body."""
    bodies = st.one_of(st.binary(max_size=60), spelled(members("inputs")), st.just(b""))
    return Drawn(
        method=draw(st.sampled_from(METHODS)),
        path=draw(paths),
        headers=draw(headers()),
        body=draw(bodies),
        is_chunked=draw(flags),
    )


@st.composite
def together(draw: st.DrawFn) -> Sequence[Drawn]:
    """Draw requests that arrive at once, many of them for one lane."""
    path = draw(routes)
    chosen = st.just(draw(options()))
    one_lane = st.one_of(good(path, chosen), nearly_good(path, chosen))
    others = st.one_of(good(path), good(), nearly_good(), recorded(), noise())
    company = st.lists(good(path, chosen), max_size=3)
    mixed = st.lists(st.one_of(one_lane, others), min_size=1, max_size=6)
    return draw(st.permutations([*draw(company), *draw(mixed)]))
