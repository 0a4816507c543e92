"""Dynamics of one environment each, compiled."""
