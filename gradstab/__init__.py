"""Gradient stability of JAX programs."""
