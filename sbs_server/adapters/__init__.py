"""Database, blob store and key files behind the ports."""
