"""Every test in this folder runs by every path of the kernels."""

from kernel_paths import kernels

__all__ = ["kernels"]
