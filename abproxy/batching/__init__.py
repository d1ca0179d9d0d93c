"""
When a batch leaves, who shares it, and who gets which rows.

The clock and the way upstream are arguments; nothing here knows HTTP.
"""
