"""Arbitrage as pure arithmetic and state machines: no venue, no clock, no order. Every form here is non-atomic.

Two orders on two books are two risks: between the first fill and the second the position is a plain bet. What is here
keeps that time short, bounded and told; it cannot make it zero.
"""
