"""The outer environments: configuring runs while they train."""
