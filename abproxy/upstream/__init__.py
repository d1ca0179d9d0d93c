"""One batch, one request: how the inference server is spoken to."""
