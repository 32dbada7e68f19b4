"""Data sets, splits by recording, and batches."""
