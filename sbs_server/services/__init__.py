"""What the server does, one use case a file; sees ports only."""
