"""The models that are served: what is made for each, and all of them together."""
