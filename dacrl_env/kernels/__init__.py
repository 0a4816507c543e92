"""Compiled building blocks: products, functions, layers, Adam, random numbers.

No algorithm is in here. Everything works on one member, and every sum has an order that
depends on neither the member's place nor its company nor the width of the processor's
vectors: equal inputs give equal bits on every machine.
"""
