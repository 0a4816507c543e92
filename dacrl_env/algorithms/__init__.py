"""One algorithm a file, written for one member."""
