"""Annotated header to model to argument layout."""
