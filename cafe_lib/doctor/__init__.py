"""Whether this machine is fit to build for, serve, or run enclaves, and what to do where it is not."""
