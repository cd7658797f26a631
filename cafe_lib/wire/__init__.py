"""The only protocol definition: limits, codec, messages, key schedule, record stream."""
