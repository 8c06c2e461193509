"""The pricing models, one file each."""
