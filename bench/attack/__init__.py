"""
An attack on abproxy: hostile clients, a faulty inference server, and what held.

`make attack` starts the proxy as operators do, on this machine only, and ends by
itself: see `__main__`.
"""
