"""Inner environments: batched dynamics and adapters."""
