"""How much is accepted, of all clients and of one."""

from attrs import frozen

from abproxy.settings import parsers
from abproxy.settings.field import setting


@frozen(kw_only=True, slots=False)
class Limits:
    """How much is accepted, of all clients and of one."""

    max_waiting_inputs: int = setting(
        "max-waiting-inputs",
        parsers.at_least(1),
        10_000,
        "inputs",
        "most inputs in the queue, of a large call only the part that is next; one "
        "client may have as many as it leaves free; calls beyond that are refused with "
        "429",
    )
    max_waiting_bytes: int = setting(
        "max-waiting-bytes",
        parsers.at_least(1),
        128 << 20,
        "bytes",
        "most JSON of inputs that may wait, unsent parts of large calls included; one "
        "client may have as much as it leaves free; calls beyond that are refused with "
        "429, a call larger than half of it with 413",
    )
    max_waiting_inputs_of_one: int | None = setting(
        "max-waiting-inputs-per-client",
        parsers.at_least(1),
        None,
        "inputs",
        "most inputs of one client (a key, or an address) that may wait, unsent parts "
        "of large calls included; calls beyond that are refused with 429, a larger "
        "call with 413",
    )
    max_call_inputs: int = setting(
        "max-call-inputs",
        parsers.at_least(1),
        100_000,
        "inputs",
        "most inputs of one call; one with more is refused with 413",
    )
    rate_limit: float | None = setting(
        "rate-limit",
        parsers.rate,
        None,
        "inputs/s",
        "inputs that one client may send in a second; calls beyond that are refused "
        "with 429, a call larger than a minute's worth with 413",
    )
    call_deadline_s: float | None = setting(
        "call-deadline",
        parsers.seconds,
        None,
        "s",
        "how long after its headers the answer to a request may begin, whatever it "
        "waits for; after that it gets a 504; a client may ask for less, as with "
        "Request-Timeout-Ms",
    )
    call_timeout_s: float = setting(
        "call-timeout",
        parsers.seconds,
        300.0,
        "s",
        "how long a call, or the next part of a large one, may wait to be sent, or "
        "sent again; after that it gets a 504",
    )
    max_body_bytes: int = setting(
        "max-body-bytes",
        parsers.at_least(1),
        32 << 20,
        "bytes",
        "largest request body; a larger one is refused with 413",
    )
    max_memory_bytes: int = setting(
        "max-memory-bytes",
        parsers.at_least(1 << 20),
        256 << 20,
        "bytes",
        "how much may be held of requests, and of answers that are collected or wait "
        "to be read; above it larger requests are refused with 429, and the slowest "
        "clients are cut",
    )
    max_answer_bytes: int = setting(
        "max-answer-bytes",
        parsers.at_least(1),
        512 << 20,
        "bytes",
        "largest answer to a batch; for a larger one its callers get a 502",
    )
    max_connections: int = setting(
        "max-connections",
        parsers.at_least(1),
        10_000,
        "connections",
        "most client connections, and never more than half of the files that may be "
        "open; one too many is answered with 429 and closed",
    )
    client_keep_alive_s: float = setting(
        "client-keep-alive",
        parsers.seconds,
        75.0,
        "s",
        "how long a client's connection may be idle; a load balancer in front should "
        "close its own earlier, or its next request may meet a closing connection",
    )
    request_timeout_s: float = setting(
        "request-timeout",
        parsers.seconds,
        60.0,
        "s",
        "how long a request may take to arrive, headers and body; a slower one is "
        "refused with 408",
    )
