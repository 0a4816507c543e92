"""Learned controllers."""
