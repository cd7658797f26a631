"""The secret image: ELF reader, flat image, manifest, package file."""
