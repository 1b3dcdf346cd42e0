#!/usr/bin/env python3
"""The training speed of PyTorch and peft on the step that `lorikeet bench train`
measures: LoRA on all linears in f32, no checkpointing, AdamW.

  bench/train/peft_baseline.py --model DIR --lorikeet build/release/lorikeet

Takes turns with lorikeet, so that a busy machine slows both; where others take
turns with the processor, the ratio of tokens per second of processor time says
more. Needs torch, transformers and peft.
"""

import argparse
import re
import statistics
import subprocess
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM


def make_step(args):
    """Returns a function that does one optimizer step."""
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    vocab = model.config.vocab_size
    model = get_peft_model(
        model, LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    ids = torch.randint(0, vocab, (args.sequences, args.length))
    labels = ids.clone()
    labels[:, : args.length - args.targets] = -100

    def step():
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        optimizer.step()

    return step


def lorikeet_speeds(args):
    """The medians that lorikeet reports of a few steps: per second, per processor second."""
    command = [args.lorikeet, "bench", "train", "--model", args.model, "--rounds", "3"]
    command += ["--compute-dtype", args.compute_dtype]
    for name in ("rank", "sequences", "length", "targets", "threads"):
        command += [f"--{name}", str(getattr(args, name))]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = ("tokens/s", "tokens / processor second")
    return [float(re.search(rf"^{name} +(\d+)", text, re.M).group(1)) for name in names]


def main():
    """Measures in turns and prints the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--lorikeet", required=True)
    parser.add_argument("--compute-dtype", default="f32", choices=["f32", "bf16"], help="of lorikeet; PyTorch's is f32")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--targets", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    step = make_step(args)
    step()
    tokens = args.sequences * args.length
    theirs, ours = [], []
    for _ in range(args.rounds):
        start, processor = time.perf_counter(), time.process_time()
        for _ in range(2):
            step()
        theirs.append([2 * tokens / (time.perf_counter() - start), 2 * tokens / (time.process_time() - processor)])
        ours.append(lorikeet_speeds(args))
    for i, unit in enumerate(("tokens/s", "tokens / processor second")):
        ratios = [a[i] / b[i] for a, b in zip(ours, theirs)]
        print(
            f"{unit}: PyTorch + peft {statistics.median(t[i] for t in theirs):.0f}, "
            f"lorikeet {statistics.median(o[i] for o in ours):.0f}, ratio {statistics.median(ratios):.2f} "
            f"(rounds {' '.join(f'{r:.2f}' for r in ratios)})"
        )


if __name__ == "__main__":
    main()
