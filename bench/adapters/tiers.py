#!/usr/bin/env python3
"""What the tiers cost, over gRPC: many registered adapters against few, and the
first token of a cold adapter against a warm one.

  bench/adapters/tiers.py --lorikeet build/release/lorikeet --model DIR

Makes random rank-4 adapters on q_proj and v_proj for the model, starts one
server with all of them and one with five, and sends both the same load in turns
(Zipf, a closed loop of 8), so that the ratio holds on a busy machine; where
others take turns with the processor, the ratio of processor time per token says
more than that of throughput. Needs nothing beyond Python's own library.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile

RANK = 4
POOL_BYTES = 8 << 20


def pool_of_bf16():
    """Random bf16 numbers of about 0.01, little-endian."""
    rng = random.Random(0)
    low = rng.randbytes(POOL_BYTES // 2)
    high = bytes(rng.choice((0x3b, 0x3c, 0xbb, 0xbc))
                 for _ in range(POOL_BYTES // 2))
    pool = bytearray(POOL_BYTES)
    pool[0::2], pool[1::2] = low, high
    return bytes(pool)


def shapes_of(config):
    """Module, width and input of a layer's linears."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    head_dim = config.get("head_dim") or hidden // heads
    return {"q_proj": ("self_attn", heads * head_dim, hidden),
            "k_proj": ("self_attn", kv_heads * head_dim, hidden),
            "v_proj": ("self_attn", kv_heads * head_dim, hidden),
            "o_proj": ("self_attn", hidden, heads * head_dim),
            "gate_proj": ("mlp", inner, hidden),
            "up_proj": ("mlp", inner, hidden),
            "down_proj": ("mlp", hidden, inner)}


def write_adapter(directory, config, pool, index, rank=RANK,
                  targets=("q_proj", "v_proj")):
    shapes = shapes_of(config)
    header, data, offset = {}, [], 0
    at = index * 4098 % (POOL_BYTES // 4)  # a place of its own in the pool
    for layer in range(config["num_hidden_layers"]):
        for name in targets:
            module, out, width = shapes[name]
            for part, shape in (("lora_A", [rank, width]),
                                ("lora_B", [out, rank])):
                size = 2 * shape[0] * shape[1]
                key = (f"base_model.model.model.layers.{layer}.{module}."
                       f"{name}.{part}.weight")
                header[key] = {"dtype": "BF16", "shape": shape,
                               "data_offsets": [offset, offset + size]}
                data.append(pool[at:at + size])
                at = (at + size) % (POOL_BYTES // 2)
                offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(directory)
    with open(f"{directory}/adapter_model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + b"".join(data))
    with open(f"{directory}/adapter_config.json", "w") as out:
        json.dump({"peft_type": "LORA", "r": rank, "lora_alpha": rank,
                   "target_modules": list(targets)}, out)
    return offset


class Server:
    def __init__(self, args, work, name, count, extra=()):
        self.lorikeet = args.lorikeet
        self.count = count
        config = f"{work}/{name}.yaml"
        with open(config, "w") as out:
            out.write("lora-modules:\n")
            for i in range(count):
                out.write(f"  - a{i}={work}/adapters/a{i}\n")
        self.process = subprocess.Popen(
            [args.lorikeet, "serve", "--model", args.model, "--grpc-port", "0",
             "--state-dir", f"{work}/state-{name}", "--config", config,
             "--log-level", "warning", "--max-loras", "64", *extra],
            stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("ready grpc="):
            sys.exit(f"the server did not start: {line}")
        self.address = line.split("=")[1].strip()

    def call(self, *command):
        out = subprocess.run([self.lorikeet, *command, "--server",
                              self.address], check=True, text=True,
                             stdout=subprocess.PIPE).stdout
        return out

    def load(self, args, seed):
        """Returns tokens a second, and milliseconds of processor a token."""
        before = self.cpu_seconds()
        out = self.call(
            "bench", "serve", "--adapters",
            ",".join(f"a{i}" for i in range(self.count)),
            "--popularity", "zipf",
            "--zipf-s", "1", "--concurrency", "8", "--num-requests",
            str(args.requests), "--prompt-tokens", "32", "--output-tokens",
            "32", "--seed", str(seed), "--json")
        report = json.loads(out)
        if report["failed"]:
            sys.exit(f"requests failed: {report['errors']}")
        cpu = (self.cpu_seconds() - before) / report["output_tokens"]
        return report["output_tokens_per_second"], cpu * 1e3

    def cpu_seconds(self):
        """Processor time of the server so far, over all threads."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.terminate()
        self.process.wait()


def measure_many(args, work):
    many = Server(args, work, "many", args.adapters)
    few = Server(args, work, "few", 5)
    for server in (many, few):
        server.load(args, seed=0)  # the popular ones are there
    rates, costs = [], []
    for turn in range(args.turns):
        order = (many, few) if turn % 2 == 0 else (few, many)
        now = {server: server.load(args, seed=turn + 1) for server in order}
        rates.append(now[many][0] / now[few][0])
        costs.append(now[few][1] / now[many][1])
        print(f"turn {turn}: {args.adapters} adapters {now[many][0]:.1f} "
              f"tokens/s, {now[many][1]:.2f} ms of processor a token; 5 adapters "
              f"{now[few][0]:.1f}, {now[few][1]:.2f}", flush=True)
    admin = json.loads(many.call("adapter", "list", "--output", "json"))
    tiers = [a["tier"] for a in admin["adapters"]]
    print(f"{args.adapters} / 5, medians of {args.turns} turns: throughput "
          f"{statistics.median(rates):.3f}, tokens per processor time "
          f"{statistics.median(costs):.3f}; on the device "
          f"{tiers.count('TIER_DEVICE')}, on the host "
          f"{tiers.count('TIER_HOST')}")
    many.stop()
    few.stop()


def first_token_ms(server, task):
    out = server.call("generate", "--task", task, "--prompt",
                      "The quick brown fox jumps over the lazy dog and",
                      "--max-tokens", "2", "--ignore-eos", "--output", "json")
    finished = json.loads(out)["candidates"][0]["finished"]
    return float(finished["timings"]["time_to_first_token"].rstrip("s")) * 1e3


def measure_cold(args, work):
    server = Server(args, work, "cold", 5, ["--no-prefix-caching"])
    tiers = {"host": [], "disk": [], "device": []}
    for i in range(args.rounds):
        for tier, values in tiers.items():
            server.call("adapter", "load", "a0")
            if tier != "device":
                server.call("adapter", "unload", "a0", "--tier", tier)
            values.append(first_token_ms(server, "a0"))
    warm = statistics.median(tiers["device"])
    for tier in ("device", "host", "disk"):
        median = statistics.median(tiers[tier])
        print(f"first token, adapter in {tier:6} memory: median {median:.2f} "
              f"ms, {median / warm:.2f} of warm")
    server.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lorikeet", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--adapters", type=int, default=2000)
    parser.add_argument("--requests", type=int, default=64, help="of a turn")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    work = tempfile.mkdtemp(prefix="lorikeet-tiers-")
    try:
        with open(f"{args.model}/config.json") as file:
            config = json.load(file)
        pool = pool_of_bf16()
        for i in range(args.adapters):
            size = write_adapter(f"{work}/adapters/a{i}", config, pool, i)
        print(f"{args.adapters} adapters of {size} bytes", flush=True)
        measure_cold(args, work)
        measure_many(args, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
