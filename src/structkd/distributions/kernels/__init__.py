"""Dynamic programmes without a graph: log Z and expected parts in one go, for losses and plain marginals.

They work in probability space, which is an order of magnitude faster than log space, and certify what they return: where
a number could have underflowed, the item is named and its caller takes the log-space programme instead.
"""
