"""What every generated Python module begins with; copied into it, never imported from here."""
