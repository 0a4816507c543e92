"""The tasks in other frameworks' clothes; each module imports its framework."""
