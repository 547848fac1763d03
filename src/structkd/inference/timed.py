"""A process that annotates batches and tells how long each took; the parent process is :mod:`.benchmark`.

It is run as a file with the arguments ENGINE, FOLDER and DEVICE, so that an exported model is measured without torch.
Requests and answers are JSON, a line each: batches of lists of words in, CPU seconds out.
"""

import json
import sys
import time


def main() -> None:
    """Load a model, then answer until the input ends."""
    begun = time.perf_counter()
    engine, folder, threads = sys.argv[1:4]
    if engine == "torch":
        import torch

        torch.set_num_threads(int(threads))
        import structkd

        model = structkd.load(folder)
    else:
        sys.path.insert(0, folder)
        from annotate import load  # the module that an exported folder holds

        model = load(folder)
    model.annotate([["A", "word"]])
    answer = {"load_wall": time.perf_counter() - begun, "load_cpu": time.process_time(), "memory": _peak()}
    print(json.dumps(answer), flush=True)
    for line in sys.stdin:
        seconds = []
        for batch in json.loads(line):
            start = time.process_time()
            model.annotate(batch, batch_size=len(batch))
            seconds.append(time.process_time() - start)
        print(json.dumps({"seconds": seconds, "memory": _peak()}), flush=True)


def _peak() -> float:
    """Return the peak of this process's memory in megabytes.

    Linux: what `getrusage` tells begins with the memory of the process that started this one.
    """
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):  # not Linux
        pass
    try:
        import resource
    except ImportError:  # not on this platform
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1024


if __name__ == "__main__":
    main()
