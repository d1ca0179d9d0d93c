"""
Several processes on one port, for machines where one core is not enough.

The process that was started becomes the supervisor: it holds the port, starts
the workers, passes signals on and adds up metrics.  Each worker is a whole
proxy with its share of the limits.
"""
