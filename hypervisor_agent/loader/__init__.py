"""From a granted stream to sealed enclave memory."""
