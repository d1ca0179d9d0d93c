"""
Collects calls into batches: when one leaves, and which rows each call gets.

Begin with `collector.py`.  The clock and the way upstream are arguments;
nothing here knows HTTP.
"""
