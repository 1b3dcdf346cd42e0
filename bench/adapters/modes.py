#!/usr/bin/env python3
"""What `--merge auto` gains or costs, over gRPC, under a load that shifts: all
adapters alike, then one hot adapter, then all alike again.

  bench/adapters/modes.py --lorikeet build/release/lorikeet --model DIR

Makes random adapters on all linears of the layers, starts a server each with
--merge never, always and auto, all with room for every adapter merged, and sends
them the same load (a closed loop of 8) in turns, so that the ratio holds on a
busy machine. Needs nothing beyond Python's own library.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tiers  # noqa: E402, beside this file

MODES = ("never", "always", "auto")
PHASES = ("alike", "hot", "alike again")


def run_phase(server, args, is_hot, seed):
    """Returns the seconds that the phase took."""
    count = 1 if is_hot else args.adapters
    report = json.loads(server.call(
        "bench", "serve", "--adapters",
        ",".join(f"a{i}" for i in range(count)), "--popularity", "uniform",
        "--concurrency", "8", "--num-requests", str(args.requests),
        "--prompt-tokens", "32", "--output-tokens", "32", "--seed", str(seed),
        "--json"))
    if report["failed"]:
        sys.exit(f"requests failed: {report['errors']}")
    return report["output_tokens"] / report["output_tokens_per_second"]


def choices_of(server):
    state = json.loads(server.call("merged", "--output", "json"))
    return sum(bool(c.get("merged")) for c in state.get("choices", []))


def run_turn(server, args, turn):
    seconds, chosen = [], []
    for i, phase in enumerate(PHASES):
        seconds.append(run_phase(server, args, phase == "hot", 3 * turn + i))
        chosen.append(choices_of(server))
    return seconds, chosen


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lorikeet", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--requests", type=int, default=192, help="of a phase")
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    work = tempfile.mkdtemp(prefix="lorikeet-modes-")
    servers = {}
    try:
        with open(f"{args.model}/config.json") as file:
            config = json.load(file)
        pool = tiers.pool_of_bf16()
        for i in range(args.adapters):
            tiers.write_adapter(f"{work}/adapters/a{i}", config, pool, i,
                                args.rank, tuple(tiers.shapes_of(config)))
        for mode in MODES:
            servers[mode] = tiers.Server(
                args, work, mode, args.adapters,
                ["--merge", mode, "--max-merged", str(args.adapters)])
            run_phase(servers[mode], args, False, seed=0)  # all is loaded
        ratios = []
        for turn in range(1, args.turns + 1):
            order = MODES[turn % 3:] + MODES[:turn % 3]
            now = {mode: run_turn(servers[mode], args, turn) for mode in order}
            for mode in MODES:
                seconds, chosen = now[mode]
                print(f"turn {turn}: {mode:6} " + ", ".join(
                    f"{phase} {s:.2f} s" for phase, s in zip(PHASES, seconds)) +
                    f"; merged by choice {chosen}", flush=True)
            total = {mode: sum(now[mode][0]) for mode in MODES}
            best = min(total["never"], total["always"])
            ratios.append(best / total["auto"])
            print(f"turn {turn}: better fixed mode / auto {ratios[-1]:.3f}",
                  flush=True)
        print(f"median of {args.turns} turns: {statistics.median(ratios):.3f}")
    finally:
        for server in servers.values():
            server.stop()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
