"""The only HTTP client of the SBS."""
