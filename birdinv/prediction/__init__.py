"""Scoring recordings and writing tables of detections."""
