"""Compiled CPU kernels that take and return torch tensors (extra: structkd[fast]). `engines` decides on their use.

Each file holds the kernels of one recursion and the functions that launch them. Three files serve all kernels:
`runtime` starts threads and checks whether numba works, `lanes` defines the vector type that the kernels are written
in, and `disk` stores compiled code. Only `runtime` and `edmonds` may be imported without numba; `edmonds` also runs
uncompiled.

Sums over structures are computed in float64 probability space and certified. `ok` (or `safe` for one sentence) is False
if a number may have underflowed, if no structure is possible or if a loss is infinite. The numbers returned with it are
then meaningless, and the caller uses another engine. The padding does not influence the results, which are 0 there (-1
for heads and labels).
"""
