"""Where the build puts cafe-vmm."""
