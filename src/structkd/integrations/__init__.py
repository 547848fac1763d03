"""Distributions from the models and layers of other libraries. None of the libraries is needed to import this.

import structkd.integrations as integrations

output = model(**batch)  # a token classifier of transformers
word_ids = [batch.word_ids(item) for item in range(len(batch["input_ids"]))]
teacher = integrations.from_hf(output, model.config, word_ids=word_ids)
"""

from .parsers import from_supar
from .taggers import from_hf, from_pytorch_crf
from .words import words_of

__all__ = ["from_hf", "from_pytorch_crf", "from_supar", "words_of"]
