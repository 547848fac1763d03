"""The recursions behind the distributions: log Z, expectations, losses with their gradients, and best structures.

There is one module for each recursion. Each function computes values and gradients together and leaves no autograd
graph. `engines` decides whether a compiled kernel (folder `compiled`), a Triton kernel or torch runs it.

The fast engines work in probability space, which is an order of magnitude faster than log space. They certify their
results. A sentence in which a number may have underflowed is computed again in log space.
"""
