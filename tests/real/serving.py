"""What is known of a real server: how it is started and asked."""

from collections.abc import Callable, Mapping, Sequence

from attrs import field, frozen

from real.between import Between
from real.cases import Dialect
from real.running import Serve


@frozen(kw_only=True)
class Server:
    """A published server that is run for real."""

    name: str
    place: str
    """Where it is installed, below `.venv-real`."""

    what: str
    """What is run, in a phrase for the page."""

    serve: Serve
    """Run it in a folder, and give its URL."""

    dialects: Sequence[Dialect]
    versions: Callable[[], Mapping[str, str]]
    elsewhere: Sequence[str] = field(factory=tuple)
    """Paths of other routes that are asked as well."""

    openai_base: str | None = None
    """Where OpenAI's clients find it, below its URL."""

    key: str = "none"
    ways: Mapping[str, Between] = field(factory=dict)
    """Ways to it besides those that lead to every server."""

    hugging_face: str | None = None
    """The path for huggingface_hub's client."""
