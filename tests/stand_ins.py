"""Small untrained stand-ins for what otherwise comes from a hub: a BERT with its tokenizer, and word vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForTokenClassification, BertModel, PreTrainedTokenizerFast

SENTENCES = [["the", "unbelievable", "cats", "sat"], ["dogs"], ["a", "rainy", "day", "untidy", "[SEP]", "zzz", "."]]


def small_bert(folder: Path, positions: int = 512) -> Path:
    """Write a BERT of two layers of 12 cells, its weights random, and a tokenizer that falls back on characters."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = [chr(code) for code in range(33, 127)]
    pieces = list(dict.fromkeys([*specials, "the", "cat", "##s", "sat", *letters, *(f"##{each}" for each in letters)]))
    tokenizer = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = ("pad_token", "unk_token", "cls_token", "sep_token")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **dict(zip(names, specials, strict=True))).save_pretrained(
        folder
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        backbone = BertModel(
            BertConfig(
                vocab_size=len(pieces),
                max_position_embeddings=positions,
                hidden_size=12,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=16,
            )
        )
        for weight in backbone.parameters():  # positions and context must be seen in the result
            weight.data.normal_(std=0.4)
    backbone.save_pretrained(folder)
    return folder


def small_classifier(folder: Path, labels: Sequence[str]) -> Path:
    """Write a token classifier with random weights, as plain transformers saves one."""
    small_bert(folder, positions=48)
    config = BertConfig.from_pretrained(folder, id2label=dict(enumerate(labels)))
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = BertForTokenClassification(config)
        for weight in model.parameters():
            weight.data.normal_(std=0.4)
    model.save_pretrained(folder)
    return folder


def word_vectors(path: Path, size: int = 3, words: tuple[str, ...] = ("the", "cats", "sat", "rainy")) -> Path:
    """Write a file of word vectors: 1, 2, ..., size for the first word, then the same times 2, 3, ..."""
    lines = [
        " ".join([word, *(str(scale * number) for number in range(1, size + 1))])
        for scale, word in enumerate(words, start=1)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
