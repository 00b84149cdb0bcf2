"""self_attention.py's blockwise_attention against PyTorch's scaled_dot_product_attention on the CPU, and the formula.

    python tests/benchmarks/self_attention.py            # 8 heads x 2048 tokens x 64, float32: under a minute
    python tests/benchmarks/self_attention.py --tokens 8192 --heads 1 --causal

Both sides use the same number of threads, are warmed up and then run in turn, with a pause before each so that no
thread of the other still spins; the median of the ratios of their times is printed: above 1, NumPy is faster. Where
OPENBLAS_* variables are set, all is measured twice, with them and without. Last comes the peak memory of a process
that attends over 32,768 tokens.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from figures import print_figures

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "self_attention"))
PEAK_MEMORY = """
import resource, sys, time
import numpy as np
import self_attention
query, key, value = np.random.default_rng(0).standard_normal((3, 32768, 64), dtype=np.float32)
start = time.perf_counter()
self_attention.blockwise_attention(query, key, value)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
print(f"32,768 tokens x 64, one head: {seconds:.2f} s, peak memory of the process {peak:.0f} MB")
"""


def seconds(function) -> float:
    """Seconds that a call takes after a pause."""
    time.sleep(0.05)
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(options: argparse.Namespace) -> None:
    """Print the median times, the median of their ratios and the largest difference of the results."""
    import numpy as np
    import torch

    import self_attention as script

    shape = (3, 1, options.heads, options.tokens, options.dim)
    arrays = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    arrays[0] *= options.scale
    tensors = [torch.from_numpy(array) for array in arrays]
    torch.set_num_threads(options.threads)

    def ours():
        return script.blockwise_attention(
            *arrays, causal=options.causal, num_threads=options.threads
        )

    def theirs():
        return torch.nn.functional.scaled_dot_product_attention(
            *tensors, is_causal=options.causal
        ).numpy()

    def formula():
        return script.attention(*arrays, causal=options.causal)[0]

    difference = np.abs(ours() - theirs()).max()
    for function in (ours, theirs, ours, theirs):
        function()
    rounds = [(seconds(ours), seconds(theirs)) for _ in range(options.rounds)]
    ratios = sorted(theirs / ours for ours, theirs in rounds)
    for name, times in zip(("NumPy", "PyTorch"), zip(*rounds, strict=True), strict=True):
        print(
            f"{name:>8}: median {1e3 * statistics.median(times):.1f} ms, best {1e3 * min(times):.1f} ms"
        )
    quarter = len(ratios) // 4
    print(f"   ratio: PyTorch / NumPy, median {statistics.median(ratios):.3f}", end=", ")
    print(
        f"middle half {ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f}; largest difference {difference:.1e}"
    )
    figures = dict(zip(("NumPy", "PyTorch"), zip(*rounds, strict=True), strict=True))
    if options.heads * options.tokens**2 <= 2**27:  # more would need gigabytes
        figures["formula"] = [seconds(formula) for _ in range(6)][1:]
        print(f" formula: median {1e3 * statistics.median(figures['formula']):.1f} ms")
    print_figures({name: 1e3 * statistics.median(times) for name, times in figures.items()})


def main() -> None:
    """Run the measurement in a process of its own for each environment."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for flag, default in {
        "heads": 8,
        "tokens": 2048,
        "dim": 64,
        "rounds": 41,
        "threads": os.cpu_count(),
    }.items():
        parser.add_argument(f"--{flag}", type=int, default=default)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of the queries: at 20 a maximum must be taken off"
    )
    parser.add_argument("--causal", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        measure(options)
        return
    settings = {name: value for name, value in os.environ.items() if name.startswith("OPENBLAS_")}
    bare = {name: value for name, value in os.environ.items() if name not in settings}
    environments = (
        {json.dumps(settings): {**bare, **settings}, "{}": bare} if settings else {"{}": bare}
    )
    what = f"{options.heads} heads x {options.tokens} x {options.dim}, float32{', causal' * options.causal}"
    for name, environment in environments.items():
        print(f"{what}, {options.threads} threads, OPENBLAS_* settings {name}:", flush=True)
        subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--inside"], env=environment, check=True
        )
        environment = {**environment, "PYTHONPATH": sys.path[0]}
        subprocess.run([sys.executable, "-c", PEAK_MEMORY], env=environment, check=True)


if __name__ == "__main__":
    main()
