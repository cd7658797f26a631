"""The TPM: keys, activation, quotes."""
