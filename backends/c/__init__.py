"""Emission of a program as a C library, its compilation, and calls into it."""
