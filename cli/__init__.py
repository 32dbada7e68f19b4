"""The command line: one file per command, each a thin adapter round one library call."""
