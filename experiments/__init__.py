"""Experiments: one file per question, run as ``python -m experiments.NAME``."""
