"""`cafe fuzz`: a hostile guest and a hostile enclave made from the developer's own interface."""
