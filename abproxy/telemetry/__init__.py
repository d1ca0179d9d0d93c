"""
What an operator sees: metrics, the diagnosis, the status, logs and traces.

It observes the rest of the proxy, which works the same without it.
"""
