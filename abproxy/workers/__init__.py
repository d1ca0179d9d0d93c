"""
Several processes on one port, for machines where one core is not enough.

The process that was started becomes the foreman: it holds the port, starts the
workers, passes on what signals say, and adds up their figures.  Each worker is
a whole proxy with its share of the limits.
"""
