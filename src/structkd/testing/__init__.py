"""Put a distribution through the tests that this library's own distributions pass.

Write the hooks of a :class:`Family`: random scores, the distribution built from them, and every structure of a few
words with the score cells it sums. The tests compare partition, marginals, entropy, decoding, k best, samples, padding,
precision and gradients with enumeration. In a test file::

    from structkd.testing import ConformanceTests, Family

    class Words(Family):
        name = "words"

        def scores(self, generator, batch, n, dtype=torch.float64):
            return {"scores": torch.randn(batch, n, 3, generator=generator, dtype=torch.float64).to(dtype)}

        def build(self, scores, lengths=None):
            return MyDistribution(scores["scores"], lengths=lengths)

        def structures(self, n):
            return list(itertools.product(range(3), repeat=n))

        def cells(self, structure):
            return [("scores", (word, label)) for word, label in enumerate(structure)]

        def event_shape(self, n):
            return (n, 3)

    class TestMyDistribution(ConformanceTests):
        family = Words()

pytest is not needed to import this package.
"""

from .conformance import ConformanceTests
from .enumeration import Enumeration, Structure, cross_entropy, log_sum_exp, mixture
from .family import Cell, Family, Scores, agrees, lengths_tensor, remembered, seeded

__all__ = [
    "Cell",
    "ConformanceTests",
    "Enumeration",
    "Family",
    "Scores",
    "Structure",
    "agrees",
    "cross_entropy",
    "lengths_tensor",
    "log_sum_exp",
    "mixture",
    "remembered",
    "seeded",
]
