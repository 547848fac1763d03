"""Compiled CPU kernels: torch tensors in, torch tensors out (extra: structkd[fast]). Entered through `engines`.

Every file holds the kernels of one recursion and, beside each, the function that launches it; `runtime` starts threads
and finds out whether numba works, `lanes` is the vector type that the kernels are written in, `disk` keeps what was
compiled. Only `runtime` and `edmonds`, which also runs as it is, may be imported without numba.

Sums over structures are in float64 probability space, and certified: if a number could have been lost to underflow, if
no structure is possible or a loss is infinite, `ok` (or a sentence's `safe`) is False, the numbers that come with it
have no meaning, and the caller takes another engine. Cells in the padding change nothing, and are 0 in the results (-1
in heads and labels).
"""
