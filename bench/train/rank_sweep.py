#!/usr/bin/env python3
"""Quality against rank: trains the demo's tasks at several ranks and with all
weights, and prints a table of exact match on held-out words; with --plot also
draws it.

  python3 demo/make/task_data.py /tmp/tasks
  bench/train/rank_sweep.py --lorikeet build/release/lorikeet --data /tmp/tasks

Needs nothing beyond Python's own library.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path


def train(args, task, method, folder):
    """Returns (exact match, wall seconds, processor seconds) of one job."""
    output = folder / f"{task}-{method}"
    rate = args.full_learning_rate if method == "full" else args.learning_rate
    command = [args.lorikeet, "train", "--model", args.model, "--output", str(output)]
    command += ["--data", str(args.data / f"{task}.train.jsonl"), "--eval", str(args.data / f"{task}.test.jsonl")]
    command += ["--steps", str(args.steps), "--batch-size", str(args.batch), "--token-budget", "2048"]
    command += ["--learning-rate", str(rate), "--warmup-steps", str(args.steps // 10), "--eval-steps", "0"]
    command += ["--checkpoint-steps", "0", "--threads", str(args.threads)]
    command += ["--method", "full"] if method == "full" else ["--rank", method, "--alpha", str(2 * int(method))]
    start = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    record = json.loads((output / "training.json").read_text())
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return record["eval_exact_match"], time.monotonic() - start, processor


def plot(path, methods, tasks, results):
    """A line per task, and their mean, over the methods."""
    width, height, left, top, bottom = 640, 360, 50, 20, 40
    step = (width - left - 130) / max(1, len(methods) - 1)
    low = min(results.values()) - 0.02
    x = lambda i: left + i * step
    y = lambda v: top + (1.0 - v) / (1.0 - low) * (height - top - bottom)
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for i, method in enumerate(methods):
        name = "all weights" if method == "full" else f"r = {method}"
        svg.append(f'<text x="{x(i):.0f}" y="{height - 15}" text-anchor="middle">{name}</text>')
    for k in range(5):
        value = 1.0 - k * (1.0 - low) / 4
        svg.append(f'<line x1="{left}" y1="{y(value):.1f}" x2="{width - 110}" y2="{y(value):.1f}" stroke="#ddd"/>')
        svg.append(f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{100 * value:.0f}</text>')
    for n, task in enumerate(tasks):
        color = f"hsl({360 * n // len(tasks)},70%,42%)"
        points = " ".join(f"{x(i):.1f},{y(results[task, m]):.1f}" for i, m in enumerate(methods))
        svg.append(f'<polyline fill="none" stroke="{color}" stroke-width="1.5" points="{points}"/>')
        svg.append(f'<text x="{width - 100}" y="{top + 14 * n + 10}" fill="{color}">{task}</text>')
    path.write_text("\n".join(svg) + "\n</svg>\n")


def main():
    """Trains everything and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lorikeet", required=True)
    parser.add_argument("--model", default="demo/base")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default="reverse upper sort caesar vowels double ends length".split())
    parser.add_argument("--methods", nargs="+", default="1 2 4 8 16 full".split(), help="ranks, and full")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--full-learning-rate", type=float, default=5e-4)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--plot", type=Path, help="SVG file")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    results = {}
    print("| task | " + " | ".join(args.methods) + " | seconds each | processor seconds |")
    print("|" + "---|" * (len(args.methods) + 3))
    try:
        for task in args.tasks:
            runs = [train(args, task, method, folder) for method in args.methods]
            results |= {(task, m): run[0] for m, run in zip(args.methods, runs)}
            cells = [f"{100 * run[0]:.1f}" for run in runs]
            cells += ["-".join(f"{f(r[1] for r in runs):.0f}" for f in (min, max))]
            cells += ["-".join(f"{f(r[2] for r in runs):.0f}" for f in (min, max))]
            print(f"| {task} | " + " | ".join(cells) + " |", flush=True)
    finally:
        shutil.rmtree(folder)
    if args.plot:
        plot(args.plot, args.methods, args.tasks, results)


if __name__ == "__main__":
    main()
