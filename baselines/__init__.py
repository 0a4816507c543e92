"""Policies and methods to compare against."""
