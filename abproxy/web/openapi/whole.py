"""The whole description, in OpenAPI 3.1."""

from collections.abc import Mapping

import msgspec

from abproxy import __version__
from abproxy.dialects.call import Dialect
from abproxy.dialects.routes import ROUTES
from abproxy.web.openapi.batched import batched
from abproxy.web.openapi.own import own_paths
from abproxy.web.openapi.schemas import Schema

__all__ = ["describe"]

REF = "#/components/schemas/{name}"


def describe(routes: Mapping[bytes, Dialect] = ROUTES) -> Schema:
    """Write the whole description."""
    bodies, components = msgspec.json.schema_components(
        [route.body for route in routes.values()], ref_template=REF
    )
    shared = {
        path.decode(): batched(route, body)
        for (path, route), body in zip(routes.items(), bodies, strict=True)
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "abproxy",
            "version": __version__,
            "description": (
                "An auto-batching proxy for embedding servers. The routes here are "
                "its own and those whose calls share batches; every other request "
                "is passed on to the inference server alone and unchanged. `/` and "
                "`/invocations` are whatever the inference server's model does."
            ),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": {**shared, **own_paths()},
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }
