"""The control sockets of the VMs."""
