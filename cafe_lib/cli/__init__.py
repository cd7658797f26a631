"""The cafe command, one file per noun."""
