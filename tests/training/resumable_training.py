"""Run by test_distillation_trainer.py: one training that can be killed. Arguments: folder, seconds per step."""

import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
from test_distillation_trainer import ANNOTATION, tagger, text

from structkd import KDObjective, LinearAnnealing, structural_kd_loss, supervised_loss
from structkd.training import TeacherTargets, fit, training_text

folder, delay = Path(sys.argv[1]), float(sys.argv[2])


def slow_supervised_loss(*arguments, **options):
    time.sleep(delay)
    return supervised_loss(*arguments, **options)


torch.set_num_threads(1)
train = training_text(ANNOTATION, text(22, 1), text(21, 2, labelled=False))
targets = TeacherTargets.compute(tagger("crf", seed=9), train, progress=False)
model = tagger("maxent", locked_dropout=0.3, word_dropout=0.1)
result = fit(
    model,
    train,
    text(12, 3),
    objective=KDObjective(structural_kd_loss, slow_supervised_loss, LinearAnnealing(1.0, 0.5)),
    settings={
        "max_steps": 20,
        "eval_steps": 4,
        "per_device_train_batch_size": 8,
        "learning_rate": 0.05,
        "report_to": "none",
    },
    folder=folder,
    seed=5,
    targets=targets,
)
save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "final.safetensors")
(folder / "result.json").write_text(json.dumps({"resumed_from": result.resumed_from, "history": result.history}))
