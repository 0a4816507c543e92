"""Policies and methods on tasks, side by side, and what is said of them."""
