"""TPM structures, quote verification and policy: pure, no I/O."""
