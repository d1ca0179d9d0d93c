"""The commands `twistd abproxy` and `twistd abproxy-model`."""

from twisted.application.service import ServiceMaker

abproxy = ServiceMaker(
    "abproxy", "abproxy.tap", "An auto-batching proxy for embedding servers.", "abproxy"
)
abproxy_model = ServiceMaker(
    "abproxy-model",
    "abproxy_model.tap",
    "A small real embedding model with the API of text-embeddings-inference.",
    "abproxy-model",
)
