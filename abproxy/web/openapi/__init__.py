"""Our own surface and what is batched, described in OpenAPI, and to read."""
