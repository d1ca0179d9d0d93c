"""Several inference servers of one model: which of them gets a request."""
