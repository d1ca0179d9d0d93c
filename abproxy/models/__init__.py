"""The models that are served: what is made for each from its settings, and all of them."""
