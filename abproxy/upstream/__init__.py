"""Inference servers: how requests reach them, and what is known of them."""
