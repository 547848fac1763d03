"""One engine that annotates sentences when it is told to: what `inference.py` starts for every row of its table.

    python inference_worker.py ENGINE FOLDER BATCH SENTENCES

ENGINE is exported (needs numpy and onnxruntime alone), compiled or torch (structkd's two paths), classifier (a token
classifier of transformers), or spacy. SENTENCES is a JSON file with lists of words. The process says "ready" when the
model is loaded and warm. For every line "FIRST LAST" on its standard input it annotates these sentences, never sorted,
and answers with the seconds of processor time. Before that it annotates the last 64 sentences again and again for
WARM_UP seconds: a processor that waited while other engines had their turns works at half its speed for a while, which
would count most for the fastest engine. For "spans FIRST LAST" it answers with the entities of every sentence,
[start, end, label] in words, the end exclusive.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

WARM_UP = 0.5

Annotate = Callable[[list[list[str]]], Any]


def exported(folder: str, batch: int) -> Annotate:
    """The module that lies in an exported folder."""
    sys.path.insert(0, folder)
    from annotate import load

    model = load(folder)

    def run(sentences: list[list[str]]) -> Any:
        found = []
        for cut in range(0, len(sentences), batch):
            found += model.annotate(sentences[cut : cut + batch], batch_size=batch)
        return found

    return run


def structkd_model(folder: str, batch: int, path: str) -> Annotate:
    """A model in torch: encoding, network and decoding, without the plain data that annotate makes of it."""
    import torch

    import structkd
    from structkd.distributions.kernels.engines import using
    from structkd.sentences import Sentence, tagged

    torch.set_num_threads(1)
    model = structkd.load(folder)

    def run(sentences: list[list[str]]) -> Any:
        found = []
        with using(path), torch.no_grad():
            for cut in range(0, len(sentences), batch):
                some = sentences[cut : cut + batch]
                inputs = model.encode([{"tokens": words} for words in some])
                decoded = model.decode(model.scores(model(**inputs)), inputs["lengths"])
                columns = {name: values.tolist() for name, values in decoded.items()}
                for row, words in enumerate(some):
                    values = {name: rows[row][: len(words)] for name, rows in columns.items()}
                    found.append(model.annotation.names(values))
        if found and "labels" in found[0] and model.annotation.types is not None:
            return [tagged(Sentence(()), each["labels"], model.annotation.scheme) for each in found]
        return found

    return run


def classifier(folder: str, batch: int) -> Annotate:
    """A token classifier of transformers in torch; a word has the label of its first piece."""
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    from structkd.tags import strict_spans

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    names = model.config.id2label

    def run(sentences: list[list[str]]) -> Any:
        found = []
        for cut in range(0, len(sentences), batch):
            some = sentences[cut : cut + batch]
            pieces = tokenizer(some, is_split_into_words=True, return_tensors="pt", padding=True, truncation=True)
            with torch.no_grad():
                best = model(**pieces).logits.argmax(-1).tolist()
            for row, words in enumerate(some):
                tags = ["O"] * len(words)
                for place, word in reversed(list(enumerate(pieces.word_ids(row)))):
                    if word is not None:
                        tags[word] = names[best[row][place]]
                read = [(span.start, span.end + 1, span.type) for span in strict_spans(tags, "BIO")]
                found.append({"spans": [{"start": start, "end": end, "label": name} for start, end, name in read]})
        return found

    return run


def spacy_entities(package: str, batch: int) -> Annotate:
    """spaCy's entity recognizer on words that are split already, alone."""
    import spacy
    from spacy.tokens import Doc

    nlp = spacy.load(package)
    nlp.select_pipes(enable=[name for name in ("tok2vec", "ner") if name in nlp.pipe_names])

    def run(sentences: list[list[str]]) -> Any:
        documents = (Doc(nlp.vocab, words=words) for words in sentences)
        return [
            {"spans": [{"start": span.start, "end": span.end, "label": span.label_} for span in document.ents]}
            for document in nlp.pipe(documents, batch_size=batch)
        ]

    return run


def main(engine: str, folder: str, batch: str, sentences: str) -> None:
    with open(sentences, encoding="utf-8") as file:
        text = json.load(file)
    if engine == "exported":
        annotate = exported(folder, int(batch))
    elif engine == "classifier":
        annotate = classifier(folder, int(batch))
    elif engine == "spacy":
        annotate = spacy_entities(folder, int(batch))
    else:
        annotate = structkd_model(folder, int(batch), engine)
    annotate(text[-64:])
    print("ready", flush=True)
    for line in sys.stdin:
        first, last = map(int, line.split()[-2:])
        if line.startswith("spans"):
            found = annotate(text[first:last])
            print(
                json.dumps([[[s["start"], s["end"], s["label"]] for s in each["spans"]] for each in found]), flush=True
            )
            continue
        begun = time.process_time()
        while time.process_time() - begun < WARM_UP:
            annotate(text[-64:])
        begun = time.process_time()
        annotate(text[first:last])
        print(time.process_time() - begun, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
