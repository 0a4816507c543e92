"""Measurements of throughput, and of where the time goes."""
