"""The OpenAPI document that abproxy serves, and the page that shows it."""
