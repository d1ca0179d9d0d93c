"""Published clients, on a way as directly: what they give, and how they fail."""

import asyncio
import importlib.metadata
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import huggingface_hub
import openai
from attrs import frozen

from real.cases import TOO_LONG, TOPICS
from real.comparing import TOLERANCE
from real.serving import Server

MODEL = "minilm"
MANY = 20

Ask = Callable[[str], Any]


@frozen(kw_only=True)
class Use:
    """One use of a client: what it gives is compared with what it gives directly."""

    client: str
    name: str
    ask: Ask


def uses(server: Server) -> Iterator[Use]:
    """Make the uses that *server* has a route for."""
    if server.openai_base is not None:
        yield from _openai_uses(server.openai_base, server.key)
    if server.hugging_face is not None:
        yield from _hugging_face_uses(server.hugging_face)


def versions() -> Mapping[str, str]:
    """Return the versions of the clients."""
    names = ("openai", "huggingface_hub")
    return {name: importlib.metadata.version(name) for name in names}


def differ(use: Use, direct: str, through: str) -> str:
    """Compare both ways; say how they differ, or nothing."""
    one, other = _outcome(use.ask, direct), _outcome(use.ask, through)
    if _are_equal(one, other):
        return ""
    return f"{_short(one)}, not {_short(other)}"


def _openai_uses(base: str, key: str) -> Iterator[Use]:
    def create(inputs: Any, **options: Any) -> Ask:
        def ask(url: str) -> Any:
            with openai.OpenAI(
                base_url=f"{url}{base}", api_key=key, max_retries=0
            ) as client:
                given = {"model": MODEL, **options}
                return _rows(client.embeddings.create(input=inputs, **given))

        return ask

    def gather(url: str) -> Any:
        return asyncio.run(_gather(f"{url}{base}", key))

    several = list(TOPICS)
    for name, ask in {
        "a text": create(TOPICS[0]),
        "a list": create(several),
        "floats": create(several, encoding_format="float"),
        "a large list": create(several * 10),
        "dimensions": create(several, dimensions=8),
        "an empty list": create([]),
        "an empty text": create(""),
        "too long a text": create(TOO_LONG),
        "an unknown model": create(TOPICS[0], model="no-such-model"),
        "many at once": gather,
    }.items():
        yield Use(client="openai", name=name, ask=ask)


async def _gather(url: str, key: str) -> list[Any]:
    async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
        asked = [
            client.embeddings.create(input=f"{TOPICS[n % 10]} {n}", model=MODEL)
            for n in range(MANY)
        ]
        return [_rows(each) for each in await asyncio.gather(*asked)]


def _rows(answer: Any) -> Any:
    return [answer.model, [each.embedding for each in answer.data]]


def _hugging_face_uses(path: str) -> Iterator[Use]:
    def extract(text: Any) -> Ask:
        def ask(url: str) -> Any:
            client = huggingface_hub.InferenceClient(base_url=f"{url}{path}")
            return client.feature_extraction(text).tolist()

        return ask

    for name, text in {
        "a text": TOPICS[0],
        "a list": list(TOPICS),
        "an empty text": "",
        "too long a text": TOO_LONG,
    }.items():
        yield Use(client="huggingface_hub", name=name, ask=extract(text))


def _outcome(ask: Ask, url: str) -> Any:
    try:
        return ask(url)
    except Exception as error:  # noqa: BLE001  whatever it is
        return f"{type(error).__name__}: {error}".replace(url, "URL")


def _are_equal(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_are_equal, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, abs_tol=TOLERANCE, rel_tol=0)
    return type(one) is type(other) and one == other


def _short(outcome: Any) -> str:
    text = str(outcome)
    return f"{text[:200]}{'…' * (len(text) > 200)}"
