"""What the log calls an inference server."""

from pathlib import Path

from abproxy.errors import CannotConnect
from support.models import several_models, tables
from support.proxy import wired


def test_one_of_several_is_called_by_its_address(
    tmp_path: Path, said: list[str]
) -> None:
    """Where it fails, and where it is back."""
    with several_models(tmp_path, tables(a="", b="")) as here:
        upstream = here.model("b").upstream
        upstream.start()
        here.upstreams["b"].open[0].fail(CannotConnect("away"))
        here.call("/models/b/embed", inputs="i")
        here.answer_all()
        upstream.stop()

    assert "Cannot query the inference server http://b:8080: away" in said
    assert "The inference server http://b:8080 answers again after 0.0 s" in said


def test_the_only_one_needs_no_address(said: list[str]) -> None:
    """There is no other that could be meant."""
    with wired() as here:
        here.inference_server.start()
        here.upstream.open[0].fail(CannotConnect("away"))
        here.inference_server.stop()

    assert "Cannot query the inference server: away" in said
