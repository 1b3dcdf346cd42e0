#!/usr/bin/env python3
"""Runs the tests of the CUDA operators on the emulated device, in all builds,
many orders and with every arithmetic of the tensor cores.

    tests/cuda_on_host/campaign.py [--build build/release] [--seeds 20]
                                   [--tests lora,gemm] [--jobs 2]

Per test: each build (fast, checked, asan) in order and in reverse; the fast and
the asan build in random orders of threads, blocks and streams, one seed after
the other, with plain, Ampere and Hopper arithmetic in turns and approximate
intrinsics off by what is documented; the checked build with three seeds, since
it takes ten times as long. A line per run; exit code 1 if one failed, with its
output.
"""

import argparse
import concurrent.futures
import itertools
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTS = ("attention", "elementwise", "embed", "gemm", "kv_cache",
         "linear_group", "lora", "merge", "rms_norm", "rope", "sample",
         "train_attention", "train_elementwise", "train_product")
BUILDS = ("fast", "checked", "asan")
ARITHMETIC = ("plain", "ampere", "hopper")
CHECKED_SEEDS = 3
TIMEOUT_S = 1800


def orders(build, seeds):
    yield "schedule=in-order"
    yield "schedule=reverse"
    count = min(seeds, CHECKED_SEEDS) if build == "checked" else seeds
    for seed, mma in zip(range(1, count + 1), itertools.cycle(ARITHMETIC)):
        yield (f"schedule=random,streams=random,perturb,mma={mma},"
               f"seed={seed}")


def asan_runtime(build_dir):
    cache = (build_dir / "CMakeCache.txt").read_text()
    found = re.search(r"^LORIKEET_ASAN_RUNTIME:INTERNAL=(.+)$", cache, re.M)
    return found.group(1) if found else None


def run(build_dir, runtime, test, build, options):
    env = dict(os.environ, LORIKEET_BINARY_DIR=str(build_dir),
               LORIKEET_CUDA_ON_HOST_BUILD=build, CUDA_ON_HOST=options)
    if build == "asan":
        env.update(LD_PRELOAD=runtime, ASAN_OPTIONS="detect_leaks=0")
    folder = "train/" if test.startswith("train_") else ""
    start = time.monotonic()
    try:
        result = subprocess.run(
            [build_dir / f"tests/kernels/{folder}kernels_{test}_test",
             "--gtest_filter=*cuda_on_host*", "--gtest_brief=1"],
            env=env, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=TIMEOUT_S, check=False)
        code, output = result.returncode, result.stdout
    except subprocess.TimeoutExpired as error:
        code, output = "timeout", str(error.stdout)
    return code, output, time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--tests", default=",".join(TESTS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    build_dir = (ROOT / args.build).resolve()
    runtime = asan_runtime(build_dir)
    builds = [b for b in BUILDS if b != "asan" or runtime]
    if not runtime:
        print("skipped: the build with ASan is not there")
    work = [(test, build, options)
            for test in args.tests.split(",") for build in builds
            for options in orders(build, args.seeds)]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        runs = [pool.submit(run, build_dir, runtime, *w) for w in work]
        for i, (w, future) in enumerate(zip(work, runs), 1):
            code, output, seconds = future.result()
            print(f"{i}/{len(work)} {w[0]:17} {w[1]:8} {w[2]}: "
                  f"{'passed' if code == 0 else f'FAILED ({code})'} "
                  f"{seconds:.1f} s", flush=True)
            if code != 0:
                failed += 1
                print(output, flush=True)
    print(f"{len(work)} runs, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
