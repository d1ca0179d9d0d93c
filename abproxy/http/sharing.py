"""
Which header lines let calls share a batch: every line is of one of four classes.

It goes by kinds of names rather than by a list of all of them: vendors name
their request ids, signatures and keys in much the same way.  A line of which
nothing is known keeps two calls apart: sharing a batch by mistake would give one
client the answer of another.  The operator's word counts more than what is built in.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from operator import itemgetter

from attrs import field, frozen

from abproxy.http.messages import HeaderList

__all__ = [
    "BUILT_IN",
    "MEMBER",
    "Kind",
    "LineRules",
    "SortedLines",
    "kind_of",
    "may_be_ignored",
    "read_timeout_s",
]

MEMBER = "body."
"""What a name begins with in settings that is a member of the body, and no line."""


class Kind(StrEnum):
    """The effect of a header line on sharing."""

    IGNORED = "ignored"
    """No answer depends on it; it is left out of shared requests."""

    CREDENTIAL = "credential"
    """It says who asks: kept apart by its value, sent upstream, never shown."""

    APART = "apart"
    """Calls share a batch only if it is the same in both."""

    ALONE = "alone"
    """It is about the body as it is, so the call is neither shared nor split."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _any_of(*patterns: str) -> "re.Pattern[str]":
    return re.compile("|".join(patterns))


# Digests and signatures of the body: RFC 9530, RFC 9421, RFC 1864, and what
# Amazon, Google, Azure and webhooks have of their own.

_ALONE = re.compile(
    r"(?:.*[-_])?(?:signature|sig|digest|hmac|checksum|md5|sha-?(?:1|224|256|384|512)"
    r"|(?:content|body|payload)[-_]?(?:hash|crc32c?|sha-?[0-9]*))s?(?:[-_].*)?"
    r"|x-goog-hash|dpop"
)
"""Those that ask for a digest of the answer among them: a batch has another."""

_SIGNED = re.compile(
    rb"[ \t]*(?:[\w-]*hmac[\w-]*|[\w-]*signature[\w-]*|hawk|sharedkey(?:lite)?|digest"
    rb"|oauth|aws|dpop)[ \t]",
    re.IGNORECASE,
)
"""Schemes of `Authorization` whose value is good for one request only."""

# Credentials: keys and tokens, and what an authenticating proxy says of the user
# (oauth2-proxy, Authelia, authentik, Envoy, Azure, Google, Amazon, Cloudflare,
# Tailscale, Kubernetes).

_IDENTITY = _words(
    "x-forwarded-user x-forwarded-email x-forwarded-groups x-forwarded-group "
    "x-forwarded-preferred-username x-forwarded-roles x-forwarded-access-token "
    "x-forwarded-id-token x-forwarded-client-cert remote-user remote-email "
    "remote-groups remote-name x-webauth-user api-key x-api-key authorization "
    "proxy-authorization cookie x-access-token x-auth-token x-anonymous-consumer "
    "x-appengine-user-email x-appengine-user-id x-appengine-user-nickname "
    "x-appengine-user-organization x-wsse"
)
_IDENTITY_PREFIXES = (
    "cf-access-",
    "remote-user-",
    "tailscale-user-",
    "x-amzn-oidc-",
    "x-auth-request-",
    "x-authenticated-",
    "x-authentik-",
    "x-consumer-",
    "x-credential-",
    "x-goog-authenticated-user-",
    "x-goog-iap-",
    "x-ms-client-principal",
    "x-ms-token-",
    "x-pomerium-",
    "x-remote-",
)
_CREDENTIAL = _any_of(
    r"(?:.*[-_])?(?:authorization|authentication|auth|jwt|assertion|token|secret"
    r"|passw(?:or)?d|passphrase|credentials?|cookie2?|apikey)(?:-bin)?",
    r"(?:.*[-_])?(?:api|access|account|admin|auth|functions|license|master|private"
    r"|public|rapidapi|secret|subscription|virtual)[-_]?key(?:-id)?",
    r"(?:.*[-_])?client-?cert(?:-.*)?|ssl-client-.*|x-ssl-client-.*",
)
_NO_CREDENTIAL = frozenset({"x-remote-ip", "x-remote-addr", "x-remote-port"})

# Lines that look harmless and are not: instructions to a gateway.

_APART = re.compile(r"cf-aig-.*|x-forwarded-(?:host|prefix)")

# Lines of clients, proxies and tracing, on which no answer depends.

_IGNORED = _words(
    "accept accept-encoding amz-sdk-request b3 cache-control cdn-loop connect-time "
    "content-type correlation-context date dnt downlink ect forwarded front-end- "
    "https grpc-tags-bin http-referer max-forwards newrelic pragma priority referer "
    "request-context rndr-id rtt save-data sec-gpc sec-purpose singularityheader "
    "total-route-time traceresponse via x-amz-cf-id x-amz-id-2 x-arr-ssl x-azure- "
    "fdid x-azure-ref x-dtpc x-envoy-attempt-count x-envoy-decorator-operation "
    "x-envoy-external-address x-envoy-internal x-envoy-original-path x-envoy-peer- "
    "metadata x-envoy-peer-metadata-id x-fd-healthprobe x-forwarded x-forwarded-by "
    "x-forwarded-port x-forwarded-proto x-forwarded-protocol x-forwarded-scheme "
    "x-forwarded-server x-forwarded-ssl x-original-proto x-priority x-queue-start "
    "x-request-received x-request-start x-scheme x-title x-url-scheme x-varnish "
    "x-vercel-id"
)
_IGNORED_PREFIXES = (
    "akamai-",
    "cf-",
    "cloudfront-",
    "elastic-apm-",
    "fastly-",
    "fly-",
    "jaeger-",
    "ot-baggage-",
    "ot-tracer-",
    "sec-ch-",
    "sec-fetch-",
    "uberctx-",
    "x-akamai-",
    "x-appengine-",
    "x-b3-",
    "x-datadog-",
    "x-dynatrace",
    "x-instana-",
    "x-jaeger-",
    "x-newrelic-",
    "x-ot-",
    "x-stainless-",
    "x-vercel-ip-",
)
_IGNORED_KINDS = _any_of(
    # ids of requests, and what tracing adds: sentry-trace, uber-trace-id, baggage
    r"(?:.*[-_])?(?:trace|span|parent-?span|request|req|correlation|transaction"
    r"|invocation|litellm-call|log)[-_]?(?:id|guid|uuid)s?(?:-bin)?",
    r"(?:.*[-_])?(?:trace|traceparent|tracestate|baggage)(?:-bin)?",
    r"(?:.*[-_])?trace[-_](?:context|flags|options|parent|sampled|state|bin)",
    r"sw[0-9]+(?:-.*)?",
    # attempts of one call
    r"(?:.*[-_])?idempoten(?:cy|t)[-_](?:key|id|token)",
    r"(?:.*[-_])?(?:retry|attempt)[-_]?(?:attempt|count|number)",
    # addresses, as proxies write them
    r"(?:.*[-_])?(?:real|client|connecting|peer|remote|socket)[-_]?"
    r"(?:connection-)?(?:ip|addr|address|port)|(?:.*[-_])?(?:user|originating)-ip",
    r"(?:.*[-_])?(?:forwarded|proxied)-for",
    # names and versions of clients
    r"(?:.*[-_])?user-?agent",
    r"(?:.*[-_])?(?:client|sdk)[-_](?:info|lang|language|name|platform|version)",
    r"(?:.*[-_])?(?:app|library|package)[-_]version",
    r"x-goog-api-client|x-client-data",
)

# Deadlines: each call may have its own.

_TIMEOUT = re.compile(
    r"(?:(?P<of>.*)[-_])?(?:timeout|deadline)"
    r"(?:[-_](?P<unit>ms|millis|milliseconds|s|secs?|seconds|us|micros|microseconds))?"
)
_OF_A_PIECE = re.compile(r"(?:.*[-_])?(?:per-try|connect|connection|idle|read|write)")
"""A timeout that is not for the whole call."""

_NUMBER = re.compile(rb"([0-9]{1,9}(?:\.[0-9]{1,9})?)(?:[ \t]?(ms|s|us))?")
_GRPC = re.compile(rb"([0-9]{1,8})([HMSmun])")
_SECONDS = {
    **dict.fromkeys(("s", "sec", "secs", "seconds"), 1.0),
    **dict.fromkeys(("ms", "millis", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "micros", "microseconds"), 1e-6),
}
_GRPC_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6}


NAMES = 1000
"""Of so many names it is remembered what they mean; then all are forgotten."""

LONGEST_NAME = 100
"""A longer name is none that is known, and is not remembered."""


def kind_of(name: str) -> Kind:
    """Return what the line *name*, in lower case, means if the operator is silent."""
    if len(name) > LONGEST_NAME:
        return Kind.APART  # to look for words in it would cost too much
    if _ALONE.fullmatch(name):
        return Kind.ALONE
    if _is_ignored_for_sure(name):
        return Kind.IGNORED
    if _is_credential(name):
        return Kind.CREDENTIAL
    if _APART.fullmatch(name):
        return Kind.APART
    ignored = name in _IGNORED or name.startswith(_IGNORED_PREFIXES)
    ignored = ignored or _TIMEOUT.fullmatch(name) is not None
    return Kind.IGNORED if ignored else Kind.APART


def _is_ignored_for_sure(name: str) -> bool:
    """Return whether a line is ignored though its name sounds like a credential."""
    if name.startswith(_IDENTITY_PREFIXES) and name not in _NO_CREDENTIAL:
        return False
    return _IGNORED_KINDS.fullmatch(name) is not None


def _is_credential(name: str) -> bool:
    if name in _NO_CREDENTIAL:
        return False
    known = name in _IDENTITY or name.startswith(_IDENTITY_PREFIXES)
    return known or _CREDENTIAL.fullmatch(name) is not None


def may_be_ignored(pattern: str) -> bool:
    """
    Return whether the operator may have the lines of *pattern* ignored.

    A pattern with a final `*` may not cover any credential that is known.
    """
    if not pattern.endswith("*"):
        return kind_of(pattern) is not Kind.CREDENTIAL
    start = pattern[:-1]
    covers = any(name.startswith(start) for name in _IDENTITY)
    covers = covers or any(each.startswith(start) for each in _IDENTITY_PREFIXES)
    within = start.startswith(_IDENTITY_PREFIXES)
    return not (covers or within or kind_of(start) is Kind.CREDENTIAL)


def read_timeout_s(name: str, value: bytes) -> float | None:
    """
    Return after how many seconds the line *name* wants an answer.

    None if it is about something else, or the unit is not certain.
    """
    if name == "grpc-timeout":
        found = _GRPC.fullmatch(value)
        return int(found[1]) * _GRPC_SECONDS.get(found[2], 1e-9) if found else None
    unit = _timeout_unit(name) if len(name) <= LONGEST_NAME else None
    if unit is None:
        return None
    number = _NUMBER.fullmatch(value)
    if number is None:
        return None
    written = (number[2] or b"").decode()
    if bool(unit) is bool(written):
        return None  # what is said twice, or not at all, is not certain
    return float(number[1]) * _SECONDS[unit or written]


@lru_cache(NAMES)
def _timeout_unit(name: str) -> str | None:
    """Return the unit in *name*, which may have none; None if it is no deadline."""
    found = _TIMEOUT.fullmatch(name)
    if found is None or _OF_A_PIECE.fullmatch(found["of"] or ""):
        return None
    if name.startswith(_IGNORED_PREFIXES):
        return None
    return found["unit"] or ""


@frozen
class _Names:
    """Names of lines, of which some end in `*` and mean all that begin so."""

    exact: frozenset[str] = frozenset()
    starts: tuple[str, ...] = ()

    def __contains__(self, name: str) -> bool:
        return name in self.exact or name.startswith(self.starts)


def _names_in(words: Iterable[str]) -> _Names:
    lines = [word for word in words if not word.startswith(MEMBER)]
    return _Names(
        frozenset(word for word in lines if not word.endswith("*")),
        tuple(word[:-1] for word in lines if word.endswith("*")),
    )


@frozen(kw_only=True)
class SortedLines:
    """The lines of a request, by what they mean for sharing."""

    shared: HeaderList = field(repr=False)
    """Those that keep calls apart, sorted by name; a shared request has them."""

    alone_by: str | None
    """The line that keeps the call from being shared or split, if there is one."""


@frozen(kw_only=True)
class LineRules:
    """The operator's rules about header lines, and the built-in ones for all others."""

    ignore: _Names = _Names()
    apart: _Names = _Names()
    alone: _Names = _Names()

    _known: dict[bytes, tuple[str, Kind]] = field(
        init=False, factory=dict, eq=False, repr=False
    )
    """Names in lower case and kinds, by names as they are spelled."""

    @classmethod
    def of(
        cls, ignore: Iterable[str], apart: Iterable[str], alone: Iterable[str]
    ) -> "LineRules":
        """Make the rules of the words that settings have; members are no lines."""
        names = map(_names_in, (ignore, apart, alone))
        return cls(**dict(zip(("ignore", "apart", "alone"), names, strict=True)))

    def kind(self, name: str) -> Kind:
        """Return what the line *name*, in lower case, means."""
        known = kind_of(name)
        if name in self.alone:
            return Kind.ALONE
        if name in self.apart:
            return Kind.CREDENTIAL if known is Kind.CREDENTIAL else Kind.APART
        if name in self.ignore and known is not Kind.CREDENTIAL:
            return Kind.IGNORED
        return known

    def sort(self, lines: HeaderList) -> SortedLines:
        """
        Return which of *lines* keep the call from sharing with others.

        The values of one name stay in their order: the first may count, or the last.
        """
        shared: list[tuple[bytes, bytes]] = []
        alone_by = None
        for line in lines:
            name, kind = self._known.get(line[0]) or self._look_up(line[0])
            if name in SAID_BY_VALUE and self._is_alone(name, line[1]):
                kind = Kind.ALONE
            if kind is Kind.ALONE:
                alone_by = alone_by or name
            if kind is not Kind.IGNORED:
                shared.append(line)
        shared.sort(key=itemgetter(0))
        return SortedLines(shared=tuple(shared), alone_by=alone_by)

    def _look_up(self, spelled: bytes) -> tuple[str, Kind]:
        name = spelled.lower().decode("latin-1")
        found = name, self.kind(name)
        if len(self._known) >= NAMES:
            self._known.clear()
        if len(name) <= LONGEST_NAME:
            self._known[spelled] = found
        return found

    def _is_alone(self, name: str, value: bytes) -> bool:
        """Return whether a line of which nothing is set goes alone by its value."""
        if name in self.apart or name in self.ignore:
            return False
        if name == "accept":
            return not _takes_json(value)
        return _SIGNED.match(value) is not None


SAID_BY_VALUE = frozenset({"accept", "authorization"})
"""Lines of which some values make a call go alone."""

BUILT_IN = LineRules()
"""For when the operator says nothing."""

_JSON_TYPES = frozenset({b"", b"*/*", b"application/*", b"application/json"})


def _takes_json(accept: bytes) -> bool:
    """Return whether a client with this `Accept` is content with JSON."""
    types = [each.partition(b";")[0].strip().lower() for each in accept.split(b",")]
    return any(each in _JSON_TYPES or each.endswith(b"+json") for each in types)
