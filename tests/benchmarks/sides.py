"""What the benchmarks share: sides that take turns in processes of their own, and the machine's matrix-product rate."""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def matmul_rate(dtype: torch.dtype) -> float:
    """Floating-point operations per second of a product of two square matrices."""
    a, b = torch.randn(2048, 2048, dtype=dtype), torch.randn(2048, 2048, dtype=dtype)
    times = []
    for _ in range(8):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / statistics.median(times[2:])


def serve(connection, prepare: Callable[[], Callable[[int], Any]]) -> None:
    """Prepare a side, then run it once for every round number that arrives, until None does."""
    run = prepare()
    for number in iter(connection.recv, None):
        connection.send(run(number))


def take_turns(
    sides: dict[str, Callable[[], Callable[[int], Any]]], rounds: range
) -> dict[str, list]:
    """Run every side once a round, one after the other; return what each gave in each round.

    A side is a picklable function that prepares a process of its own, so that no side runs with another's settings,
    and returns the function to run in each round.
    """
    context, connections, processes = multiprocessing.get_context("spawn"), {}, []
    for name, prepare in sides.items():
        connections[name], end = context.Pipe()
        processes.append(context.Process(target=serve, args=(end, prepare), daemon=True))
        processes[-1].start()
        end.close()  # so that a side that fails ends this process too
    results = {name: [] for name in sides}
    for number in rounds:
        for name, connection in connections.items():
            connection.send(number)
            results[name].append(connection.recv())
    for connection, process in zip(connections.values(), processes, strict=True):
        connection.send(None)
        process.join()
    return results
