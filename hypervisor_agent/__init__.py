"""The agent on an attested host."""
