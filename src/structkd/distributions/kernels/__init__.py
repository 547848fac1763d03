"""Dynamic programmes without a graph: log Z and expected parts in one go, for losses and plain marginals.

They work in probability space, which is an order of magnitude faster than log space, and certify what they return:
a sentence for which a number could have underflowed is done again in log space.
"""
