"""The peak memory of one loss, in a process of its own: called by run.py.

    python peak.py CASE IMPLEMENTATION

CASE is JSON. IMPLEMENTATION is a contender's name, or "none" to build the scores and leave it at that. Writes bytes.
Ends with an error, rather than take the machine's memory away from others, at 8 GB of address space.
"""

from __future__ import annotations

import json
import resource
import sys
import warnings

import torch
from contenders import COMPILED, TORCH, TORCH_STRUCT, Case, contenders
from measuring import forget_peak, peak_memory

LIMIT = 8 * 10**9


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, resource.getrlimit(resource.RLIMIT_AS)[1]))
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*does not define `arg_constraints`")
    case, name = Case(**json.loads(sys.argv[1])), sys.argv[2]
    # every process runs everything once on a small batch, so that what loading code takes is in the peaks of all
    small = Case(case.structure, 2, 3, min(case.labels, 3))
    for run in contenders(small, only=(COMPILED, TORCH, TORCH_STRUCT)).values():
        run()
    forget_peak()
    if name == "none":
        scores = case.scores()
        del scores
    else:
        contenders(case, only=(name,))[name]()
    print(peak_memory())


if __name__ == "__main__":
    main()
