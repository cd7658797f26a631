"""The Secret Binary Server: verifier and relying party."""
