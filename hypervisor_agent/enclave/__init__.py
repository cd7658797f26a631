"""Running enclaves: the VMM process, the emulator, their lives."""
