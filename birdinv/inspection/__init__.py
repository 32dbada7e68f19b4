"""A trained network looked into, on one's own recordings or images."""
