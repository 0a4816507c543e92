"""What methods have in common: the runs they spend, what they search."""
