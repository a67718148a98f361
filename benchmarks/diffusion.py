"""Offline diffusion per node: ours (`retrieval.diffusion.offline`) against the published one, on one graph.

    python benchmarks/diffusion.py --nodes 10000

The published algorithm (Yang et al., AAAI 2019) is written plainly with SciPy: for each node the Laplacian is
sliced to the node's neighbourhood and solved by `scipy.sparse.linalg.cg`, in a pool of threads. The two take
turns in one run: SciPy on a sample of the nodes, ours on a shard of them. Synthetic vectors: arcs on the
sphere with noise, a tenth of them unrelated to all others. The Laplacian is kept in float64 (the original's
is float32, at the same speed), so that the difference is that of the solvers.

The floor is that of bandwidth, measured in the same run by the stream triad: the bytes that cutting must read
and write once at the speed of memory, those that the iterations touch at the speed of the cache that holds a
pack's system.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.sparse import csr_array, csr_matrix, eye_array
from scipy.sparse.linalg import cg

from lmr.retrieval.diffusion._conjugate import LANES, pack_rows, solve_cuts
from lmr.retrieval.diffusion.affinity import affinity, transition
from lmr.retrieval.diffusion.offline import neighbourly_order, offline_columns
from lmr.retrieval.diffusion.online import diffuse_cut
from lmr.retrieval.global_search.exact import top_k

ALPHA, GAMMA, TOLERANCE, ITERATIONS = 0.99, 3.0, 1e-6, 20


def vectors(n: int, d: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Make arcs of 8 to 59 points over 1.2 rad, noise added, and a tenth unrelated vectors, shuffled."""
    rows = [rng.standard_normal((n // 10, d))]
    have = n // 10
    while have < n:
        size = min(int(rng.integers(8, 60)), n - have)
        start, towards = np.linalg.qr(rng.standard_normal((d, 2)))[0].T
        angle = rng.uniform(0, 1.2, (size, 1))
        noise = rng.standard_normal((size, d)) * 0.4 / np.sqrt(d)
        rows.append(np.cos(angle) * start + np.sin(angle) * towards + noise)
        have += size
    x = rng.permutation(np.concatenate(rows))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def plainly(laplacian: csr_matrix, ids: NDArray[np.int32]) -> NDArray[np.float64]:
    """The published algorithm for one node: slice, solve."""
    first = np.zeros(len(ids))
    first[0] = 1
    scores, _ = cg(laplacian[ids][:, ids], first, rtol=TOLERANCE, maxiter=ITERATIONS)
    return np.asarray(scores)


@njit(nogil=True)
def triad(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64], times: int) -> None:
    for _ in range(times):
        for i in range(len(a)):
            a[i] = b[i] + 0.5 * c[i]


def bandwidth(threads: int, bytes_per_array: int) -> float:
    """Measure bytes per second of the stream triad, all threads together, each on three arrays of its own.

    Seconds are those that a thread runs: what others take of a busy machine is left out.
    """
    length = bytes_per_array // 8
    times = max(1, 8_000_000 // length)  # as much work, whatever the size
    arrays = [[np.ones(length) for _ in range(3)] for _ in range(threads)]
    triad(*(a[:8] for a in arrays[0]), 1)
    with ThreadPoolExecutor(threads) as pool:
        turns = [clocked(lambda: list(pool.map(lambda part: triad(*part, times), arrays))) for _ in range(5)]
    return threads**2 * 3 * length * 8 * times / min(cpu for _, cpu in turns)


def clocked(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU seconds (of all threads) of `work`."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def bytes_needed(s: csr_array, cuts: NDArray[np.int32]) -> tuple[float, float, float]:
    """Count bytes per node for cutting and for solving, and the bytes of one array of a pack's system.

    Cutting takes them from memory, each once: a node's list and its scores, and the graph's rows once per
    pack of `LANES` nodes. Solving takes them from a cache, in each iteration: per edge its column, its
    value and the direction's row of lanes; per node of the pack three times the direction (float32), twice
    the image, three times the residual and twice the solution (float64).
    """
    graph = s.indptr.astype(np.int64), s.indices, s.data
    cuts = cuts[pack_rows(*graph, cuts[:, 0].copy())]
    scores, one = np.empty(cuts.shape, dtype=np.float32), np.ones((len(cuts), 1), dtype=np.float32)
    limits = ALPHA, TOLERANCE, ITERATIONS
    work = solve_cuts(*graph, int(np.diff(graph[0]).max()), cuts, cuts[:, :1], one, False, *limits, scores)
    nodes, edges, products = work / len(cuts)
    print(
        f"packs of {LANES} nodes: {LANES * nodes:.0f} nodes and {LANES * edges:.0f} edges, "
        f"{products / edges:.1f} iterations"
    )
    cutting = 8 * cuts.shape[1] + nodes * (s.nnz / s.shape[0] * 8 + 8)
    per_edge, per_node = 12 + 4 * LANES, (3 * 4 + 7 * 8) * LANES
    solving = products * per_edge + products / edges * nodes * per_node
    return cutting, solving, LANES * nodes * 8 * LANES


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=128)
    parser.add_argument("--truncation", type=int, default=1000)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shard", type=int, default=10_000, help="nodes that ours solves per turn")
    parser.add_argument("--sample", type=int, default=300, help="nodes that SciPy solves per turn")
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    x = vectors(args.nodes, args.dimensions, rng)

    start = time.perf_counter()
    sims, ids = top_k(x, [(0, x)], args.k, threads=args.threads)
    s = transition(affinity(ids, sims, gamma=GAMMA, threads=args.threads))
    laplacian = csr_matrix(eye_array(args.nodes) - ALPHA * s.astype(np.float64))
    nodes = neighbourly_order(ids)[: args.shard]
    _, lists = top_k(x[nodes], [(0, x)], min(args.truncation, args.nodes), threads=args.threads)
    seconds = time.perf_counter() - start
    print(
        f"graph: {args.nodes} nodes, {s.nnz / args.nodes:.1f} edges per node; with all lists {seconds:.1f} s"
    )

    settings = {"alpha": ALPHA, "tolerance": TOLERANCE, "iterations": ITERATIONS, "threads": args.threads}
    cuts, scores = offline_columns(s, nodes, lists, **settings)  # compiles
    one = np.ones((len(nodes), 1), dtype=np.float32)
    cut_only = {**settings, "iterations": 0}
    times: dict[str, list[tuple[float, float]]] = {"ours": [], "cut": [], "scipy": []}
    difference, relative = 0.0, 0.0
    for _ in range(args.turns):
        times["ours"].append(clocked(lambda: offline_columns(s, nodes, lists, **settings)))
        times["cut"].append(
            clocked(lambda: diffuse_cut(s, cuts, cuts[:, :1], one, renormalise=False, **cut_only))
        )
        sample = cuts[rows := rng.choice(len(nodes), min(args.sample, len(nodes)), replace=False)]
        plain: list[NDArray[np.float64]] = []
        with ThreadPoolExecutor(args.threads) as pool:
            solve = lambda pool=pool, sample=sample, plain=plain: plain.extend(  # noqa: E731
                pool.map(lambda row: plainly(laplacian, row), sample)
            )
            times["scipy"].append(clocked(solve))
        gap = np.abs(scores[rows] - np.stack(plain)).max(axis=1)
        difference = max(difference, float(gap.max()))
        relative = max(relative, float((gap / np.stack(plain).max(axis=1)).max()))

    each = {"ours": len(nodes), "cut": len(nodes), "scipy": len(sample)}
    wall, cpu = (
        {who: statistics.median(t[clock] for t in turns) / each[who] * 1e3 for who, turns in times.items()}
        for clock in (0, 1)
    )
    cutting, solving, array = bytes_needed(s, cuts)
    memory, cache = bandwidth(args.threads, 64_000_000), bandwidth(args.threads, int(array))
    floors = {"cut": cutting / memory * 1e3, "solve": solving / cache * 1e3}
    spent = {"cut": wall["cut"], "solve": wall["ours"] - wall["cut"]}
    floor = sum(floors.values())
    result = {
        "nodes": args.nodes,
        "truncation": cuts.shape[1],
        "k": args.k,
        "threads": args.threads,
        "ms_per_node": wall["ours"],
        "scipy_ms_per_node": wall["scipy"],
        "ratio_to_scipy": wall["scipy"] / wall["ours"],
        "ratio_to_scipy_cpu": cpu["scipy"] / cpu["ours"],
        "cpu_ms_per_node": cpu["ours"],
        "scipy_cpu_ms_per_node": cpu["scipy"],
        "cut_share": cpu["cut"] / cpu["ours"],
        "max_abs_difference": difference,
        "max_relative_difference": relative,
        "floor_ms_per_node": floor,
        "times_floor": wall["ours"] / floor,
        **{f"floor_{part}_ms_per_node": floors[part] for part in floors},
        **{f"{part}_ms_per_node": spent[part] for part in spent},
        **{f"{part}_times_floor": spent[part] / floors[part] for part in spent},
        "kilobytes_cut": cutting / 1e3,
        "kilobytes_solve": solving / 1e3,
        "memory_gb_per_s": memory / 1e9,
        "cache_gb_per_s": cache / 1e9,
    }
    for who, label in (("ours", "ours"), ("cut", "  of that, cutting the graph"), ("scipy", "SciPy")):
        print(f"{label}: {wall[who]:.3f} ms per node by the clock, {cpu[who]:.3f} of CPU")
    print(
        f"{result['ratio_to_scipy']:.1f} times by the clock, {result['ratio_to_scipy_cpu']:.1f} by CPU time"
    )
    print(f"largest difference {difference:.1e}, relative to the node's own score {relative:.1e}")
    print(
        f"floor {floor:.4f} ms per node, ours {result['times_floor']:.1f} times that: "
        f"cutting {floors['cut']:.4f} ms ({cutting / 1e3:.0f} kB from memory at {memory / 1e9:.1f} GB/s), "
        f"ours {result['cut_times_floor']:.1f} times; "
        f"solving {floors['solve']:.4f} ms ({solving / 1e3:.0f} kB from cache at {cache / 1e9:.1f} GB/s), "
        f"ours {result['solve_times_floor']:.1f} times"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
