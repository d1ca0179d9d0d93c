"""What is relayed reaches the upstream, and leads back to where it came from."""

from urllib.parse import urljoin

from support.network import network


def test_a_relayed_request_meets_no_connection_that_is_just_closing() -> None:
    """Where idle connections are closed after 5 s it is answered nevertheless."""
    call = {"query": "a", "texts": ["b", "c"]}
    with network(mood="uvicorn") as here:
        first = here.settle(here.post(call, path="/rerank"))
        connections = here.upstream.connections
        here.until(
            lambda: (
                not connections
                or any(each.transport.disconnecting for each in connections)
            )
        )

        again = here.settle(here.post(call, path="/rerank"))

        assert first == again
        assert first[0][0] == 200


def test_a_redirect_leads_to_the_clients_host() -> None:
    """Starlette sends clients to the path without a slash, at its own address."""
    with network(mood="uvicorn") as here:
        asked = here.post({"input": "a"}, path="/v1/embeddings/")
        here.settle(asked)

        assert asked.answer.status == 307
        location = asked.answer.header("Location") or ""
        led_to = urljoin("http://door/v1/embeddings/", location)
        assert led_to == "http://door/v1/embeddings"
