"""The side of the clients: requests that come in over HTTP, and their answers."""
