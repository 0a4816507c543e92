"""Population-batched inner algorithms."""
