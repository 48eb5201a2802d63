"""Finite differences that measure their own noise, and what they say of a rule."""
