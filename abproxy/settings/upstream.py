"""Which inference server is asked, and for how long."""

from attrs import frozen

from abproxy.settings import parsers
from abproxy.settings.field import secret, setting
from abproxy.settings.models import ModelsFile


@frozen(kw_only=True, slots=False)
class Upstream:
    """Which inference server is asked, and for how long."""

    upstream_url: str = setting(
        "inference-service-url",
        parsers.servers,
        "http://127.0.0.1:8080",
        "URL",
        "base URL of the inference server; or of several with the same model, "
        "separated by commas, each with the weight `=2` if it is twice as fast",
    )
    models: ModelsFile | None = setting(  # noqa: RUF009  as the others
        "models",
        parsers.file,
        None,
        "file",
        "several models behind one address: a TOML file with a table for each; what a "
        "table does not set is as for one model; read again on SIGHUP",
    )
    resolve: str = setting(
        "resolve",
        parsers.one_of("one", "all"),
        "one",
        "one or all",
        "whether a name in INFERENCE_SERVICE_URL is one server, or each of its "
        "addresses is one, as those of a headless Service of Kubernetes are",
    )
    resolve_every_s: float = setting(
        "resolve-every",
        parsers.seconds,
        30.0,
        "s",
        "how often such names are looked up again; also when a connection fails",
    )
    upstream_dialect: str = setting(
        "upstream-dialect",
        parsers.one_of("auto", "tei", "openai"),
        "auto",
        "auto, tei or openai",
        "which API the inference server has; auto asks it for /info and then for "
        "/v1/models. In front of the OpenAI API, /embed and / are translated",
    )
    upstream_key: str | None = secret(
        "inference-service-key",
        parsers.key,
        None,
        "key for the inference server, sent as `Authorization: Bearer`; "
        "without it the clients' own credentials are passed on",
    )
    upstream_key_file: str | None = setting(
        "inference-service-key-file",
        parsers.file,
        None,
        "file",
        "file with this key instead; read again when it changes",
    )
    upstream_headers: tuple[tuple[str, str], ...] = secret(
        "upstream-headers",
        parsers.header_lines,
        (),
        "headers for every request to the inference server, which replace those of "
        "clients: `Name: value`, separated by vertical bars or newlines; may set Host",
    )
    upstream_tls_cert: str | None = setting(
        "upstream-tls-cert",
        parsers.file,
        None,
        "file",
        "certificate for an inference server with https:// that asks for one, in PEM, "
        "followed by those that lead to one it knows; read again when it changes",
    )
    upstream_tls_key: str | None = setting(
        "upstream-tls-key",
        parsers.file,
        None,
        "file",
        "the key of this certificate, in PEM, without a password",
    )
    upstream_tls_ca: str | None = setting(
        "upstream-tls-ca",
        parsers.file,
        None,
        "file",
        "certificates of those who may issue the inference server's own, in PEM, in "
        "the place of those that the system trusts; read again when it changes",
    )
    model_strict: bool = setting(
        "model-strict",
        parsers.yes_or_no,
        False,
        "",
        "whether the numbers in which a model computes (float16, float32) are part of "
        "which model it is: rows of two models are never in one answer",
    )
    model_header: bool = setting(
        "model-header",
        parsers.yes_or_no,
        False,
        "",
        "whether answers of batched routes say by `X-Model-Sha` which version of the "
        "model has computed them, if the inference server tells it",
    )
    upstream_timeout_s: float = setting(
        "upstream-timeout",
        parsers.seconds,
        120.0,
        "s",
        "how long the inference server may take for one answer, body included",
    )
    upstream_keep_alive_s: float = setting(
        "upstream-keep-alive",
        parsers.seconds,
        4.0,
        "s",
        "how long an unused connection to the inference server is kept, unless that "
        "says otherwise in `Keep-Alive`, or closes one earlier",
    )
    connect_timeout_s: float = setting(
        "connect-timeout",
        parsers.seconds,
        5.0,
        "s",
        "how long opening a connection to the inference server may take",
    )
    connect_patience_s: float = setting(
        "connect-patience",
        parsers.seconds,
        5.0,
        "s",
        "how long calls wait while the inference server cannot be reached",
    )
    overload_patience_s: float | None = setting(
        "overload-patience",
        parsers.seconds,
        None,
        "s",
        "how long calls wait while the inference server has no capacity (429, 503), or "
        "its account no more for this minute; by default 5, or a minute where a rate "
        "limit says when more may be sent",
    )
    upstream_requests_per_minute: int | None = setting(
        "upstream-requests-per-minute",
        parsers.at_least(1),
        None,
        "requests",
        "most requests to the inference server in any minute, as its account may have; "
        "what is over them waits, in larger batches; by default what the answers state",
    )
    upstream_tokens_per_minute: int | None = setting(
        "upstream-tokens-per-minute",
        parsers.at_least(1),
        None,
        "tokens",
        "most tokens of these requests in any minute, counted by their length and then "
        "by the usage in the answers",
    )
    hedge_after: str | None = setting(
        "hedge-after",
        parsers.hedge_after,
        None,
        "s or p95",
        "with several inference servers: what one has not answered by then is sent to "
        "another as well, at most 5 % of all batches; p95 is longer than 95 % take",
    )
    embedded: bool = setting(
        "embedded",
        parsers.yes_or_no,
        False,
        "",
        "start a small real model beside the proxy and use it as the inference server",
    )
    embedded_model: str = setting(
        "embedded-model",
        parsers.one_of("minilm", "static"),
        "minilm",
        "minilm or static",
        "model to start with --embedded",
    )
