"""The Trainer of docs/model.md for two CRFs trains: each side has the transitions of its own layer."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from torch import nn
from transformers import BertConfig, BertForTokenClassification, BertTokenizer, TrainingArguments

import structkd
from structkd.integrations import from_pytorch_crf, words_of
from structkd.training import DistillationMixin, TokenCollator, encode_words

PAGE = Path(__file__).resolve().parents[2] / "docs" / "model.md"
NAMES = ["O", "B-PER", "I-PER"]


class Layer(nn.Module):
    """The attributes of pytorch-crf's layer."""

    batch_first = True

    def __init__(self) -> None:
        super().__init__()
        self.transitions = nn.Parameter(torch.randn(3, 3))
        self.start_transitions, self.end_transitions = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(3))


def model(layers: int) -> Any:
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "num_hidden_layers": layers}
    made = BertForTokenClassification(BertConfig(vocab_size=9, id2label=dict(enumerate(NAMES)), **sizes))
    made.crf = Layer()
    return made


def test_the_trainer_of_two_chains_trains(tmp_path: Path) -> None:
    torch.manual_seed(0)
    found = re.search(r"^    class Chains\(.*?(?=^\S)", PAGE.read_text(encoding="utf-8"), flags=re.S | re.M)
    assert found is not None
    names: dict[str, Any] = globals() | {"names": NAMES}
    exec(compile(textwrap.dedent(found[0]), "page", "exec"), names)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ana", "lee", "sing", "##s", "well"]
    tokenizer = BertTokenizer({piece: number for number, piece in enumerate(pieces)})
    rows = [encode_words(tokenizer, ["Ana", "Lee", "sings"], [1, 2, 0]), encode_words(tokenizer, ["Ana", "sings"])]
    student, teacher = model(1), model(2)
    before = student.crf.transitions.detach().clone()
    settings = {"max_steps": 2, "use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no"}
    trainer = names["Chains"](
        student,
        TrainingArguments(tmp_path, remove_unused_columns=True, **settings),
        train_dataset=Dataset.from_list(rows * 4),
        data_collator=TokenCollator(tokenizer),
        objective=structkd.KDObjective(structkd.StructuralKDLoss(), interpolation=0.5),
        teacher=teacher,
    )
    trainer.train()
    assert not torch.equal(student.crf.transitions, before)
    batch = TokenCollator(tokenizer)(rows)
    with torch.no_grad():
        scores, lengths = words_of(teacher.eval()(**trainer.teacher_inputs(batch)).logits, mask=batch["word_mask"])
        built = trainer.teacher_distribution(batch)
        expected = from_pytorch_crf(teacher.crf, scores, torch.tensor([[True] * 3, [True, True, False]]), NAMES)
    assert lengths.tolist() == [3, 2]
    torch.testing.assert_close(built.partition, expected.partition)
    torch.testing.assert_close(built.marginals, expected.marginals)
    assert isinstance(trainer, DistillationMixin)
    assert isinstance(trainer, transformers.Trainer)
