"""Figures of this system, each a ratio against a peer measured in the same run; `tools/start.sh bench` runs them."""
