"""Data sets described as data: TOML manifests (name, licence, files, classes, split)."""
