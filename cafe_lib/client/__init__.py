"""The only HTTP client of the SBS: the agent and the command line use it."""
