"""Values, rules and ports; no I/O."""
