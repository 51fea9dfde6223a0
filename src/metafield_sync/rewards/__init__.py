"""Rewards: how many points an order is worth. Pure functions of what is known; no I/O, no clock, no floats.

`order.target` is all of it: an order's points are a function of its present state and of the rule it earns by, never a
sum of what happened to it (docs/decisions/0006).
"""
