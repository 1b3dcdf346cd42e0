#!/usr/bin/env python3
"""What loading cold adapters costs the requests that run meanwhile.

  bench/adapters/loads.py --lorikeet build/release/lorikeet --model DIR

Makes random adapters on all linears of the layers, serves a closed loop of 4
requests on one of them, and meanwhile takes the others from disk to the device,
one after the other, several a second; in turns with a client that asks as often
and loads nothing, since a process on the machine costs something itself. Needs
nothing beyond Python's own library.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tiers  # noqa: E402, beside this file

COLD = 4


def ask(server, args, loads, stop, count):
    """Calls the server every `interval` until told to stop."""
    i = 0
    while not stop.is_set():
        name = f"a{1 + i % COLD}"
        if loads:
            server.call("adapter", "unload", name, "--tier", "disk")
            server.call("adapter", "load", name)
        else:
            server.call("adapter", "get", name)
            server.call("adapter", "get", name)
        i += 1
        count[0] += 1
        stop.wait(args.interval)


def run_turn(server, args, loads, seed):
    """Returns the time between tokens in ms: median and p99; and the loads."""
    stop, count = threading.Event(), [0]
    asker = threading.Thread(target=ask,
                             args=(server, args, loads, stop, count))
    asker.start()
    time.sleep(args.interval)
    report = json.loads(server.call(
        "bench", "serve", "--adapters", "a0", "--concurrency", "4",
        "--num-requests", str(args.requests), "--prompt-tokens", "32",
        "--output-tokens", "64", "--seed", str(seed), "--json"))
    stop.set()
    asker.join()
    if report["failed"]:
        sys.exit(f"requests failed: {report['errors']}")
    return report["itl_ms"]["p50"], report["itl_ms"]["p99"], count[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lorikeet", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--interval", type=float, default=0.3, help="seconds")
    parser.add_argument("--requests", type=int, default=64, help="of a turn")
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    work = tempfile.mkdtemp(prefix="lorikeet-loads-")
    server = None
    try:
        with open(f"{args.model}/config.json") as file:
            config = json.load(file)
        pool = tiers.pool_of_bf16()
        for i in range(1 + COLD):
            size = tiers.write_adapter(f"{work}/adapters/a{i}", config, pool, i,
                                       args.rank,
                                       tuple(tiers.shapes_of(config)))
        print(f"adapters of {size} bytes", flush=True)
        server = tiers.Server(args, work, "loads", 1 + COLD)
        run_turn(server, args, False, seed=0)
        medians, tails = [], []
        for turn in range(1, args.turns + 1):
            order = (True, False) if turn % 2 else (False, True)
            now = {loads: run_turn(server, args, loads, turn)
                   for loads in order}
            medians.append(now[True][0] / now[False][0])
            tails.append(now[True][1] / now[False][1])
            print(f"turn {turn}: {now[True][2]} loads: p50 {now[True][0]:.2f} "
                  f"ms, p99 {now[True][1]:.2f}; without: {now[False][0]:.2f}, "
                  f"{now[False][1]:.2f}", flush=True)
        print(f"with / without, medians of {args.turns} turns: p50 "
              f"{statistics.median(medians):.3f}, p99 "
              f"{statistics.median(tails):.3f}")
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
