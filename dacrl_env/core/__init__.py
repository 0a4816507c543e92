"""What everything else stands on: random numbers, files, snapshots, checks."""
