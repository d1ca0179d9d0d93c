"""
What an operator sees: metrics, the verdict, status, logs and traces.

It watches the other rooms, and none of them needs it.
"""
