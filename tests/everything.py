"""Imported by the forkserver of preloaded.py before it forks: all that the command and a training need."""

import gc

import matplotlib.pyplot  # noqa: F401
import pytest  # noqa: F401
import torch
import yaml  # noqa: F401

import structkd.commands.main
import structkd.reporting
import structkd.runs.distil
import structkd.training  # noqa: F401
from structkd.distributions.kernels.compiled import chain, runtime  # noqa: F401

runtime.available()  # imports numba
torch.set_num_threads(1)
# A training collects garbage several times. It need not look through half a million objects that stay.
gc.collect()
gc.freeze()
