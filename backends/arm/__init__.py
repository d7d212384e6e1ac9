"""Arm processors: kernels in intrinsics, selected before the portable ones."""
