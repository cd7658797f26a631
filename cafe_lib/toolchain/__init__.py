"""Build, stubs, leak check, signing."""
