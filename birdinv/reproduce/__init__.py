"""The papers' tables and figures, a cell at a time, beside the published numbers."""
