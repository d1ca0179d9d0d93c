"""
The real batching code on a virtual clock, in front of modelled servers.

Only the policy is played: no sockets, no JSON, no CPU time of the proxy.
`python -m bench.simulate --help` tells how to use it.
"""
