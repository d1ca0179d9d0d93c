"""Which calls share a batch, and when it is sent."""

from attrs import frozen

from abproxy.settings import parsers
from abproxy.settings.field import setting


@frozen(kw_only=True, slots=False)
class Batching:
    """Which calls share a batch, and when it is sent."""

    max_wait_ms: float = setting(
        "max-wait-time",
        parsers.milliseconds,
        0.0,
        "ms",
        "how long a call may be held so that others can join its batch; 0: a lone call "
        "is sent at once",
    )
    max_batch_calls: int | None = setting(
        "max-batch-size",
        parsers.at_least(1),
        None,
        "calls",
        "most client requests in one batch; by default as many as fit",
    )
    max_batch_inputs: int | None = setting(
        "max-batch-inputs",
        parsers.at_least(1),
        None,
        "inputs",
        "most inputs in one batch; by default as many as the inference server accepts, "
        "or 32",
    )
    max_batch_bytes: int = setting(
        "max-batch-bytes",
        parsers.at_least(1),
        1_900_000,
        "bytes",
        "most JSON in one batch; TEI accepts bodies of 2,000,000 bytes",
    )
    max_batch_tokens: int | None = setting(
        "max-batch-tokens",
        parsers.at_least(1),
        None,
        "tokens",
        "most tokens in one batch, counted by length and what the usage in answers "
        "teaches; by default as many as a hosted API is known to take; "
        "text-embeddings-inference divides larger ones itself",
    )
    slots: int | None = setting(
        "slots",
        parsers.at_least(1),
        None,
        "batches",
        "most batches in flight that were not full when sent, for each inference "
        "server; by default as many as trials show to be best, from 1 to 512",
    )
    budget: int | None = setting(
        "budget",
        parsers.at_least(1),
        None,
        "inputs",
        "most inputs in flight at each inference server; by default it adapts to it, "
        "up to the number that the server accepts",
    )
    packing: bool = setting(
        "packing",
        parsers.yes_or_no,
        True,
        "true or false",
        "whether calls of similar length are sent together when many wait, for "
        "inference servers that pad inputs to the longest",
    )
    oversize: str = setting(
        "oversize",
        parsers.one_of("split", "refuse"),
        "split",
        "split or refuse",
        "what to do with a call that has more inputs than a batch may have: split it "
        "and join the results, or send it whole, for the inference server to refuse",
    )
    usage: str = setting(
        "usage",
        parsers.one_of("shared", "exact"),
        "shared",
        "shared or exact",
        "token counts in OpenAI answers of shared batches: divided in proportion to "
        "length, or counted with one more request to /tokenize for each batch",
    )
    share_ignore: tuple[str, ...] = setting(
        "share-ignore",
        parsers.ignored_names,
        (),
        "names",
        "what may differ within a batch, because no answer depends on it: header "
        "names, separated by commas, which may end in *, and body.NAME for members",
    )
    share_apart: tuple[str, ...] = setting(
        "share-apart",
        parsers.shared_names,
        (),
        "names",
        "what must be equal for calls to share a batch, in the same form",
    )
    share_alone: tuple[str, ...] = setting(
        "share-alone",
        parsers.shared_names,
        (),
        "names",
        "what makes a call be sent alone and not split, in the same form",
    )
