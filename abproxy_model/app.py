"""
The routes of the model's server, and the order in which each checks things.

Read, count, take permits, queue, answer: the same for every route.
"""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, ClassVar, TypeVar

from attrs import define, field
from klein import Klein
from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.exceptions import HTTPException

from abproxy_model import responses
from abproxy_model.errors import (
    BackendError,
    EmptyError,
    ModelError,
    ValidationError,
)
from abproxy_model.inference import Job, JobResult, Permits, WorkQueue
from abproxy_model.metrics import Metrics
from abproxy_model.model import Model
from abproxy_model.requests import (
    Decode,
    Embed,
    EmbedAll,
    EmbedSparse,
    OpenAI,
    Predict,
    Rerank,
    Similarity,
    Tokenize,
    json_body,
)
from abproxy_model.responses import reply, reply_text
from abproxy_model.schema import BadBody
from abproxy_model.settings import Settings
from abproxy_model.tokens import Input, Options

__all__ = ("Application",)

T = TypeVar("T")
_OPENAI_PATHS = (b"/v1/embeddings", b"/embeddings")


def _klein() -> Klein:
    app = Klein()
    app.url_map.merge_slashes = False
    return app


@define(kw_only=True, eq=False)
class Application:
    """TEI's API over one model."""

    app: ClassVar[Klein] = _klein()
    _log: ClassVar[Logger] = Logger()

    model: Model
    settings: Settings
    inference: WorkQueue
    tokenization: WorkQueue
    permits: Permits = field(init=False)
    metrics: Metrics = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.permits = Permits(total=self.settings.max_concurrent_requests)
        self.metrics = Metrics.create(
            queue_size=lambda: self.inference.size,
            permits_taken=lambda: self.permits.taken,
        )

    # For operators.

    @app.route("/", methods=["GET"])
    @app.route("/health", methods=["GET"])
    @app.route("/ping", methods=["GET"])
    def health(self, request: IRequest) -> bytes:
        """Answer 200: the server is not reachable before it is ready."""
        return reply(request, 200, b"")

    @app.route("/info", methods=["GET"])
    def info(self, request: IRequest) -> bytes:
        """Describe the model and the limits."""
        return reply(request, 200, responses.info(self.model, self.settings))

    @app.route("/metrics", methods=["GET"])
    def exposition(self, request: IRequest) -> bytes:
        """Return the metrics."""
        return reply_text(request, 200, self.metrics.exposition())

    # For clients.

    @app.route("/", methods=["POST"])
    @app.route("/embed", methods=["POST"])
    @app.route("/invocations", methods=["POST"])
    async def embed(self, request: IRequest) -> bytes:
        """Answer one row for each input."""
        call = Embed.read(json_body(request))
        return await self._compute(
            request,
            call.inputs,
            write=responses.rows,
            options=self._options(call),
            normalize=call.normalize,
            dimensions=call.dimensions,
        )

    @app.route("/embed_all", methods=["POST"])
    async def embed_all(self, request: IRequest) -> bytes:
        """Answer one row for each token of each input."""
        call = EmbedAll.read(json_body(request))
        return await self._compute(
            request,
            call.inputs,
            write=responses.all_rows,
            options=self._options(call),
            pooled=False,
        )

    @app.route("/v1/embeddings", methods=["POST"])
    @app.route("/embeddings", methods=["POST"])
    async def openai(self, request: IRequest) -> bytes:
        """Answer as OpenAI does."""
        call = OpenAI.read(json_body(request))
        return await self._compute(
            request,
            call.input,
            write=responses.openai(self.model.served_model_name, call.encoding_format),
            options=Options(truncate=self.settings.auto_truncate),
            dimensions=call.dimensions,
        )

    @app.route("/similarity", methods=["POST"])
    async def similarity(self, request: IRequest) -> bytes:
        """Answer how similar the others are to the first sentence."""
        call = Similarity.read(json_body(request))
        if not call.sentences:
            raise EmptyError("`inputs.sentences` cannot be empty")
        return await self._compute(
            request,
            [call.source_sentence, *call.sentences],
            write=responses.similarities,
            options=self._options(call),
        )

    @app.route("/tokenize", methods=["POST"])
    async def tokenize(self, request: IRequest) -> bytes:
        """Answer the tokens of each input."""
        call = Tokenize.read(json_body(request))
        return await self._each(
            request,
            call.inputs if isinstance(call.inputs, list) else [call.inputs],
            lambda text: self.model.tokens.tokenize(
                text, special=call.add_special_tokens, prompt_name=call.prompt_name
            ),
        )

    @app.route("/decode", methods=["POST"])
    async def decode(self, request: IRequest) -> bytes:
        """Answer the text of each list of token ids."""
        call = Decode.read(json_body(request))
        return await self._each(
            request,
            _items(call.ids),
            lambda ids: self.model.tokens.decode(
                ids, skip_special=call.skip_special_tokens
            ),
        )

    # For other kinds of models.

    @app.route("/predict", methods=["POST"])
    def predict(self, request: IRequest) -> bytes:
        """Refuse: this needs a classifier."""
        Predict.read(json_body(request))
        raise _wrong_model("Model is not a classifier model")

    @app.route("/rerank", methods=["POST"])
    def rerank(self, request: IRequest) -> bytes:
        """Refuse: this needs a re-ranker."""
        if not Rerank.read(json_body(request)).texts:
            raise EmptyError("`texts` cannot be empty")
        raise _wrong_model("model is not a re-ranker model")

    @app.route("/embed_sparse", methods=["POST"])
    def embed_sparse(self, request: IRequest) -> bytes:
        """Refuse: this needs a SPLADE model."""
        EmbedSparse.read(json_body(request))
        raise _wrong_model("Model is not an embedding model with SPLADE pooling")

    # Errors.

    @app.handle_errors(ModelError)
    def refuse(self, request: IRequest, failure: Failure) -> bytes:
        """Answer an error of TEI's own, in the dialect of the route."""
        error: Any = failure.value
        self.metrics.request_failure.labels(err=error.counted_as).inc()
        openai = request.path in _OPENAI_PATHS
        write = responses.openai_refusal if openai else responses.refusal
        return reply(request, error.status, write(error))

    @app.handle_errors(BadBody)
    def refuse_body(self, request: IRequest, failure: Failure) -> bytes:
        """Answer as TEI's web framework does for a wrong body."""
        error: Any = failure.value
        return reply_text(request, error.status, str(error).encode())

    @app.handle_errors(HTTPException)
    def no_such_route(self, request: IRequest, failure: Failure) -> bytes:
        """Answer 404 or 405, without a body."""
        error: Any = failure.value
        allowed = sorted(getattr(error, "valid_methods", None) or ())
        if allowed:
            request.setHeader(b"allow", ",".join(allowed).encode())
        return reply(request, error.code or 500, b"")

    @app.handle_errors(Exception)
    def fail(self, request: IRequest, failure: Failure) -> bytes:
        """Answer 500 for a bug of ours; the log has the traceback."""
        self._log.failure("a request failed", failure)
        error = BackendError("Backend error: see the log", counted_as="inference")
        return reply(request, 500, responses.refusal(error))

    def _options(self, call: EmbedAll | Similarity) -> Options:
        truncate = call.truncate
        return Options(
            truncate=self.settings.auto_truncate if truncate is None else truncate,
            direction=call.truncation_direction.lower(),
            prompt_name=call.prompt_name,
        )

    async def _compute(
        self, request: IRequest, inputs: Input | Sequence[Input], **how: Any
    ) -> bytes:
        """Compute *inputs* and answer."""
        came_at = perf_counter()
        items = _items(inputs)
        method = "batch" if items is inputs else "single"
        self.metrics.request_count.labels(method=method).inc()
        self._check_count(items)
        self.metrics.embed_count.inc(len(items))
        with self.permits.hold(len(items)):
            done = await self._run(Job(model=self.model, items=items, **how))
        self.metrics.request_success.labels(method=method).inc()
        self._account(request, items, done, came_at)
        return reply(request, 200, done.body)

    async def _run(self, job: Job) -> JobResult:
        begun: list[bool] = []

        def run() -> JobResult:
            begun.append(True)
            return job.run()

        try:
            done: JobResult = await self.inference.submit(run, size=len(job.items))
        except CancelledError:
            self.metrics.dropped.inc(not begun)
            raise
        return done

    async def _each(
        self, request: IRequest, items: Sequence[T], read: Callable[[T], Any]
    ) -> bytes:
        """Answer what *read* makes of each of *items*."""
        self._check_count(items)
        found = await self.tokenization.submit(lambda: [read(item) for item in items])
        return reply(request, 200, responses.json_bytes(found))

    def _check_count(self, items: Sequence[Any]) -> None:
        if not items:
            raise EmptyError("`inputs` cannot be empty")
        limit = self.settings.max_client_batch_size
        if len(items) > limit:
            raise ValidationError(
                f"batch size {len(items)} > maximum allowed batch size {limit}",
                counted_as="batch_size",
            )

    def _account(
        self, request: IRequest, items: Sequence[Input], done: JobResult, came_at: float
    ) -> None:
        """Set the headers that say what the answer cost, and count it."""
        total_s = perf_counter() - came_at
        queue_s = done.began_at - came_at
        for name, value in {
            b"x-compute-type": "gpu+optimized",
            b"x-compute-time": _milliseconds(total_s),
            b"x-compute-characters": sum(map(len, items)),
            b"x-compute-tokens": sum(done.lengths),
            b"x-total-time": _milliseconds(total_s),
            b"x-tokenization-time": _milliseconds(done.tokenization_s),
            b"x-queue-time": _milliseconds(queue_s),
            b"x-inference-time": _milliseconds(done.inference_s),
        }.items():
            request.setHeader(name, str(value).encode())
        metrics = self.metrics
        metrics.embed_success.inc(len(items))
        metrics.batch_inputs.observe(len(items))
        metrics.batch_tokens.observe(sum(done.lengths))
        for length in done.lengths:
            metrics.input_tokens.observe(length)
        metrics.request_seconds.observe(total_s)
        metrics.queue_seconds.observe(queue_s)
        metrics.tokenization_seconds.observe(done.tokenization_s)
        metrics.inference_seconds.observe(done.inference_s)


def _items(inputs: Any) -> list[Any]:
    """
    *inputs* as a list: itself, if it is one of several, else one of one.

    A list of numbers is one input, and so is an empty list.
    """
    several = isinstance(inputs, list) and any(
        not isinstance(each, int) for each in inputs
    )
    return inputs if several else [inputs]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _wrong_model(problem: str) -> BackendError:
    return BackendError(f"Backend error: {problem}", counted_as="model_type")
