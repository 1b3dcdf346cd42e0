"""Writes the demo's tasks as files for `lorikeet train`: NAME.train.jsonl and NAME.test.jsonl.

    python3 demo/make/task_data.py /tmp/tasks
    lorikeet train --model demo/base --data /tmp/tasks/reverse.train.jsonl \
        --eval /tmp/tasks/reverse.test.jsonl --output /tmp/reverse --steps 150 --batch-size 64 --learning-rate 4e-3

Words that are held out (tasks.py) are in the test files alone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from tasks import PROMPT_TEMPLATE, TASKS, distinct_held_out_words, draw_words


def write(path: Path, words: list[str], answer) -> None:
    """One line per word."""
    with path.open("w") as file:
        for word in words:
            row = {"prompt": PROMPT_TEMPLATE.format(word=word), "completion": " " + answer(word)}
            file.write(json.dumps(row) + "\n")


def main() -> None:
    """Write all tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the files")
    parser.add_argument("--train", type=int, default=40000, help="words to train on (default: %(default)s)")
    parser.add_argument("--test", type=int, default=500, help="held-out words (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    train_words = draw_words(np.random.default_rng(args.seed), args.train, held_out=False)
    test_words = distinct_held_out_words(args.seed, args.test)
    for task in TASKS.values():
        write(args.out / f"{task.name}.train.jsonl", train_words, task.answer)
        write(args.out / f"{task.name}.test.jsonl", test_words, task.answer)


if __name__ == "__main__":
    main()
