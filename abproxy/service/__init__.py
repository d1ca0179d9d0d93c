"""The services that twistd runs: start, drain, stop, and the signals for it."""
