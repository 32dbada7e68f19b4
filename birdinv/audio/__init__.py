"""Recordings in: reading, resampling, activity, windows and the store."""
