"""Called by test_resuming.py: trainings that are killed and started again, in processes forked off this one.

Every process kills itself (SIGKILL) at a random one of the moments at which it computes a loss, or creates, opens for
writing, renames or removes something in the folder; the last one lives.
"""

import json
import os
import random
import re
import signal
from pathlib import Path

from preloaded import Death
from safetensors.torch import save_file
from test_distillation_trainer import ANNOTATION, tagger, text

from structkd import KDObjective, LinearAnnealing, structural_kd_loss, supervised_loss
from structkd.training import TeacherScores, fit, training_text

COMMON = {"per_device_train_batch_size": 8, "learning_rate": 0.05, "report_to": "none"}
SETTINGS = {
    # ends after 20 steps, in the middle of an epoch, with the weights of the best ones; logs between checkpoints
    "steps": {"max_steps": 20, "eval_steps": 3, "logging_steps": 2, "lr_scheduler_type": "cosine"},
    # ends when patience is out
    "patience": {"max_steps": 400, "eval_steps": 4, "logging_steps": 500, "learning_rate": 0.0},
    # a learning rate that depends on dev figures, accumulated batches, of words, no steps but epochs
    "epochs": {
        "num_train_epochs": 4,
        "lr_scheduler_type": "reduce_lr_on_plateau",
        "lr_scheduler_kwargs": {"patience": 0, "factor": 0.5},
        "gradient_accumulation_steps": 2,
        "learning_rate": 0.3,
    },
}
OPTIONS = {
    "steps": {},
    "patience": {"patience": 3},
    "epochs": {"select": "last", "batch_words": 40},
}


def train(folder: Path, name: str, moment: int) -> None:
    death = Death(re.escape(str(folder)), moment)
    death.watch()

    def supervised(*arguments, **options):
        death.pass_by()
        return supervised_loss(*arguments, **options)

    train = training_text(ANNOTATION, text(22, 1), text(21, 2, labelled=False))
    scores = TeacherScores.compute(tagger("crf", seed=9), train, progress=False)
    model = tagger("maxent", locked_dropout=0.3, word_dropout=0.1)
    result = fit(
        model,
        train,
        text(12, 3),
        objective=KDObjective(structural_kd_loss, supervised, LinearAnnealing(1.0, 0.5)),
        settings=COMMON | SETTINGS[name],
        folder=folder / "checkpoints",
        seed=5,
        teacher=scores,
        log=folder / "metrics.jsonl",
        **OPTIONS[name],
    )
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    content = {
        "history": result.history,
        "steps": result.steps,
        "best_step": result.best_step,
        "best_dev": result.best_dev,
    }
    (folder / "result.json").write_text(json.dumps(content))
    (folder / "moments.json").write_text(json.dumps(moment - death.count))


def in_a_process_of_its_own(folder: Path, name: str, moment: int) -> bool:
    """Whether it lived."""
    child = os.fork()
    if child == 0:
        try:
            train(folder, name, moment)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert status == 0
    return True


#: How often each is killed at most; whether it is started once more when all is done.
DEATHS = {"steps": (3, True), "patience": (1, False), "epochs": (2, False)}


def compare(folder: Path, seed: int) -> None:
    """Train in ``NAME/whole`` undisturbed and in ``NAME/killed`` with deaths; write how many in ``NAME/deaths``."""
    generator = random.Random(seed)
    for name, (most, again) in DEATHS.items():
        whole, killed = folder / name / "whole", folder / name / "killed"
        for each in (whole, killed):
            each.mkdir(parents=True)
        assert in_a_process_of_its_own(whole, name, 0)
        moments = json.loads((whole / "moments.json").read_text())
        deaths = 0
        # After its last checkpoint a training has not far to go, and lives if its moment would be later than that.
        while deaths < most and not in_a_process_of_its_own(killed, name, generator.randint(1, moments // 2)):
            deaths += 1
        for _ in range(1 + again):
            assert in_a_process_of_its_own(killed, name, 0)
        (folder / name / "deaths").write_text(str(deaths))
