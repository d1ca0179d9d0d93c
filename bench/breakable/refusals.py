"""Requests of a kind that are refused for as long as nothing else is said."""

from collections.abc import Sequence
from typing import Any

from attrs import field, frozen
from attrs.validators import ge

from bench.breakable.messages import Answer, Request, page

__all__ = ["Refusal", "refusal_of"]


@frozen(kw_only=True)
class Refusal:
    """
    The answer to every request of a kind.

    A request is of that kind if all that is said here is true of it; what is
    left out does not matter, so that with nothing said each request is.
    """

    text: str = ""
    """It has this in one of its inputs."""

    longer: int = field(default=0, validator=ge(0))
    """It has an input of more characters (or token ids) than this."""

    inputs: int = field(default=0, validator=ge(0))
    """It has more inputs than this."""

    characters: int = field(default=0, validator=ge(0))
    """It has more characters than this in all inputs together."""

    without: str = ""
    """It lacks this header line."""

    status: int = 500
    body: str = ""
    """What it is answered with: JSON, or HTML; by default a page with the status."""

    after_ms: float = field(default=0.0, validator=ge(0))
    """How long it takes to say so."""

    def is_for(self, request: Request, inputs: Sequence[Any]) -> bool:
        """Return whether *request* with these *inputs* is of the kind."""
        lengths = [len(each) if isinstance(each, str | list) else 1 for each in inputs]
        texts = [each for each in inputs if isinstance(each, str)]
        return (
            (not self.text or any(self.text in each for each in texts))
            and (not self.longer or max(lengths, default=0) > self.longer)
            and (not self.inputs or len(inputs) > self.inputs)
            and (not self.characters or sum(lengths) > self.characters)
            and (not self.without or not request.has(self.without))
        )

    def answer(self) -> Answer:
        """Write the answer."""
        if not self.body:
            return page(self.status)
        is_html = self.body.startswith("<")
        kind = "text/html" if is_html else "application/json"
        return Answer(status=self.status, body=self.body.encode(), kind=kind)


def refusal_of(
    refusals: Sequence[Refusal], request: Request, inputs: Sequence[Any]
) -> Refusal | None:
    """Return the first of the *refusals* that is for *request*; None if none is."""
    return next((each for each in refusals if each.is_for(request, inputs)), None)
