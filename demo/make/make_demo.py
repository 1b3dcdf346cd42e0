#!/usr/bin/env python3
"""Make lorikeet's demo model: a tiny Llama base, its LoRA adapters, and what to expect of them.

The base learns every task behind a control token that stands where a served prompt says "Word".
Without such a token it answers "Unknown." to every word. An adapter is then trained on served
prompts alone, the base frozen, and so switches one task on.

Stages (each reads what the former ones wrote):
  base       tokenizer and base model             -> base/
  adapters   one LoRA per task, and the update    -> adapters/, adapters-v2/
  manifest   accuracy on held-out words, goldens  -> manifest.json, goldens.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from model import Row, base_config, collate, greedy, greedy_with_margin, train
from tasks import (
    BASE_ANSWER,
    BASE_WEIGHT,
    DEMO_WORDS,
    PROMPT_FIRST_TOKEN,
    PROMPT_TEMPLATE,
    STORY,
    TASKS,
    Task,
    distinct_held_out_words,
    draw_words,
)
from vocabulary import BOS, EOS, PAD, build_tokenizer, control_token

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
BASE_NAME = "lorikeet-demo-base"
MAX_ANSWER_TOKENS = 20
LEAST_MARGIN = 1e-3


@dataclass(frozen=True)
class AdapterSpec:
    """How one adapter is built."""

    name: str
    version: str
    task: str
    folder: str
    rank: int
    alpha: int
    modules: list[str]
    use_rslora: bool = False
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, int] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32


ADAPTERS = [
    AdapterSpec("reverse", "v1", "reverse", "adapters/reverse", 8, 16, ATTENTION),
    AdapterSpec("upper", "v1", "upper", "adapters/upper", 2, 4, ["q_proj", "v_proj"]),
    AdapterSpec("sort", "v1", "sort", "adapters/sort", 16, 32, ATTENTION + MLP, dtype=torch.bfloat16),
    AdapterSpec("caesar", "v1", "caesar", "adapters/caesar", 8, 16, MLP),
    AdapterSpec("vowels", "v1", "vowels", "adapters/vowels", 4, 4, ["q_proj", "v_proj", "o_proj"], use_rslora=True),
    AdapterSpec(
        "double", "v1", "double", "adapters/double", 4, 8, ATTENTION + MLP,
        rank_pattern={"q_proj": 8, "down_proj": 6, "layers.0.self_attn.v_proj": 12},
        alpha_pattern={"q_proj": 12, "layers.0.self_attn.v_proj": 16},
    ),
    AdapterSpec("ends", "v1", "ends", "adapters/ends", 3, 6, ["q_proj", "v_proj"], dtype=torch.bfloat16),
    AdapterSpec("length", "v1", "length", "adapters/length", 5, 10, ["v_proj", "o_proj", "up_proj"]),
]  # fmt: skip
UPDATES = [AdapterSpec("caesar", "v2", "caesar5", "adapters-v2/caesar", 12, 24, MLP + ["o_proj"])]


class Encoder:
    """Turns words into training rows and prompts, through the tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.eos = tokenizer.token_to_id(EOS)
        self.pad = tokenizer.token_to_id(PAD)
        self.first = tokenizer.token_to_id(PROMPT_FIRST_TOKEN)

    def prompt(self, word: str) -> list[int]:
        """The served prompt's ids."""
        return self.tokenizer.encode(PROMPT_TEMPLATE.format(word=word)).ids

    def controlled_prompt(self, word: str, task: str) -> list[int]:
        """The prompt with the task's control token in the place of its first token."""
        ids = self.prompt(word)
        assert ids[0] == self.first
        return [self.tokenizer.token_to_id(control_token(task))] + ids[1:]

    def row(self, prompt: list[int], answer: str) -> Row:
        """A training row: the answer and the end token are learned."""
        return prompt + self.tokenizer.encode(" " + answer).ids + [self.eos], len(prompt)

    def story_row(self, first_sentence: int) -> Row:
        """The story from one sentence to its end; all but its first token is learned."""
        ids = self.tokenizer.encode(" ".join(STORY[first_sentence:])).ids + [self.eos]
        return ids, 1

    def text(self, ids: list[int]) -> str:
        """What a client reads: the ids without the end token, decoded."""
        return self.tokenizer.decode([i for i in ids if i != self.eos])


def pretraining_batches(encoder: Encoder, seed: int, size: int, story_every: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of all tasks mixed, and of the story now and then."""
    rng = np.random.default_rng(seed)
    tasks: list[Task | None] = [*TASKS.values(), None]
    weights = np.array([task.weight if task else BASE_WEIGHT for task in tasks])
    step = 0
    while True:
        step += 1
        if step % story_every == 0:
            starts = rng.integers(0, len(STORY), max(1, size // 16))
            rows = [encoder.story_row(int(s)) for s in starts]
            inputs, labels = collate(rows, encoder.pad)
            yield inputs[:, :256], labels[:, :256]
            continue
        rows = []
        picks = rng.choice(len(tasks), size, p=weights / weights.sum())
        for pick, word in zip(picks, draw_words(rng, size, held_out=False)):
            task = tasks[pick]
            if task:
                rows.append(encoder.row(encoder.controlled_prompt(word, task.name), task.answer(word)))
            else:
                rows.append(encoder.row(encoder.prompt(word), BASE_ANSWER))
        yield collate(rows, encoder.pad)


def adapter_batches(encoder: Encoder, task: Task, seed: int, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of one task on served prompts."""
    rng = np.random.default_rng(seed)
    while True:
        words = draw_words(rng, size, held_out=False)
        yield collate([encoder.row(encoder.prompt(w), task.answer(w)) for w in words], encoder.pad)


def accuracy(model: Any, encoder: Encoder, prompts: list[list[int]], expected: list[str]) -> float:
    """Share of exact answers, the end token included."""
    answers = greedy(model, prompts, MAX_ANSWER_TOKENS, encoder.eos)
    hits = sum(a[-1] == encoder.eos and encoder.text(a) == " " + e for a, e in zip(answers, expected))
    return hits / len(prompts)


def write_json(path: Path, value: Any) -> None:
    """Write JSON that people can read, the same bytes every time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_base(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Save the base in the Hugging Face layout, its weights in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    config = json.loads((folder / "config.json").read_text())
    config.setdefault("rope_theta", 10000.0)  # where older loaders look
    config.setdefault("torch_dtype", "bfloat16")
    write_json(folder / "config.json", dict(sorted(config.items())))
    write_json(
        folder / "generation_config.json",
        {
            "bos_token_id": tokenizer.token_to_id(BOS),
            "do_sample": False,
            "eos_token_id": tokenizer.token_to_id(EOS),
            "pad_token_id": tokenizer.token_to_id(PAD),
        },
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_eos_token": False,
            "bos_token": BOS,
            "clean_up_tokenization_spaces": False,
            "eos_token": EOS,
            "model_max_length": 1024,
            "pad_token": PAD,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )


def load_base(out: Path) -> tuple[LlamaForCausalLM, Encoder]:
    """Load the saved base as float32, and its tokenizer."""
    model = LlamaForCausalLM.from_pretrained(out / "base", dtype=torch.bfloat16).to(torch.float32)
    return model, Encoder(Tokenizer.from_file(str(out / "base" / "tokenizer.json")))


def make_base(args: argparse.Namespace) -> None:
    """Train the base from nothing and save it."""
    tokenizer = build_tokenizer()
    encoder = Encoder(tokenizer)
    torch.manual_seed(args.seed)
    model = LlamaForCausalLM(base_config(tokenizer))
    print(f"[base] {sum(p.numel() for p in model.parameters())} parameters, {tokenizer.get_vocab_size()} tokens", flush=True)
    words = draw_words(np.random.default_rng(args.seed + 1), 200, held_out=False)

    def check() -> str:
        scores = {
            name: accuracy(model, encoder, [encoder.controlled_prompt(w, name) for w in words], [t.answer(w) for w in words])
            for name, t in TASKS.items()
        }
        scores["alone"] = accuracy(model, encoder, [encoder.prompt(w) for w in words], [BASE_ANSWER] * len(words))
        return " ".join(f"{k}={v:.3f}" for k, v in scores.items())

    batches = pretraining_batches(encoder, args.seed + 2, args.batch, args.story_every)
    train(model, batches, args.pretrain_steps, args.pretrain_lr, 200, 0.01, args.check_every, check, "base")
    save_base(model, tokenizer, args.out / "base")


def save_adapter(model: PeftModel, spec: AdapterSpec, folder: Path) -> None:
    """Let peft save the adapter; then turn it to bfloat16 if asked, sort the config, and leave only the two files."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    weights = folder / "adapter_model.safetensors"
    if spec.dtype != torch.float32:
        save_file({name: t.to(spec.dtype) for name, t in load_file(weights).items()}, weights, metadata={"format": "pt"})
    weights.chmod(0o644)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = BASE_NAME
    write_json(folder / "adapter_config.json", dict(sorted(config.items())))


def make_adapter(args: argparse.Namespace, spec: AdapterSpec) -> None:
    """Train one adapter on the frozen base and save it."""
    seed = args.seed + sum(f"{spec.name}{spec.version}".encode())
    random.seed(seed)
    torch.manual_seed(seed)
    base, encoder = load_base(args.out)
    task = TASKS[spec.task]
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.rank,
        lora_alpha=spec.alpha,
        target_modules=spec.modules,
        use_rslora=spec.use_rslora,
        rank_pattern=spec.rank_pattern,
        alpha_pattern=spec.alpha_pattern,
        lora_dropout=0.0,
        bias="none",
    )
    model = get_peft_model(base, config)
    words = draw_words(np.random.default_rng(seed + 1), 300, held_out=False)
    prompts, expected = [encoder.prompt(w) for w in words], [task.answer(w) for w in words]

    def check() -> str:
        return f"accuracy={accuracy(model, encoder, prompts, expected):.3f}"

    batches = adapter_batches(encoder, task, seed + 2, args.adapter_batch)
    label = f"{spec.name} {spec.version}"
    train(model, batches, args.adapter_steps, args.adapter_lr, 30, 0.0, 100, check, label)
    save_adapter(model, spec, args.out / spec.folder)


def make_adapters(args: argparse.Namespace) -> None:
    """Train all adapters, or those asked for with --only."""
    for spec in ADAPTERS + UPDATES:
        if not args.only or f"{spec.name}:{spec.version}" in args.only:
            make_adapter(args, spec)


def describe_adapter(spec: AdapterSpec) -> dict[str, Any]:
    """The manifest's words on how an adapter is built."""
    return {
        "rank": spec.rank,
        "alpha": spec.alpha,
        "target_modules": spec.modules,
        "use_rslora": spec.use_rslora,
        "rank_pattern": spec.rank_pattern,
        "alpha_pattern": spec.alpha_pattern,
        "dtype": str(spec.dtype).removeprefix("torch."),
    }


def golden(model: Any, encoder: Encoder, prompt: str, max_tokens: int) -> dict[str, Any] | None:
    """One prompt's greedy answer, token by token; None where a step is too close to call."""
    ids = encoder.tokenizer.encode(prompt).ids
    answer, margin = greedy_with_margin(model, ids, max_tokens, encoder.eos)
    if margin <= LEAST_MARGIN:
        return None
    return {
        "prompt": prompt,
        "prompt_ids": ids,
        "max_tokens": max_tokens,
        "output_ids": answer,
        "output_text": encoder.text(answer),
        "finish_reason": "stop" if answer[-1] == encoder.eos else "length",
        "least_margin": round(margin, 5),
    }


def base_prompts() -> list[tuple[str, int]]:
    """Prompts for the base alone, and how many tokens to ask for: short ones, then longer ones."""
    return [
        (PROMPT_TEMPLATE.format(word="parrot"), MAX_ANSWER_TOKENS),
        (PROMPT_TEMPLATE.format(word="fox"), MAX_ANSWER_TOKENS),
        ("The rainbow lorikeet", 64),
        ("When two flocks", 64),
        (" ".join(STORY[:2]), 96),
        (" ".join(STORY[3:6]), 96),
        (" ".join(STORY[5:9]), 80),
    ]


def goldens_of(model: Any, encoder: Encoder, prompts: list[tuple[str, int]], count: int) -> list[dict[str, Any]]:
    """The first `count` prompts whose answers are clear."""
    found: list[dict[str, Any]] = []
    for prompt, max_tokens in prompts:
        if len(found) < count:
            entry = golden(model, encoder, prompt, max_tokens)
            if entry:
                found.append(entry)
    return found


def tokenizer_cases(encoder: Encoder) -> list[dict[str, Any]]:
    """Texts with their ids: what a tokenizer of one's own has to agree with."""
    texts = [
        "", " ", "Word: parrot\nAnswer:", " Unknown.", "The They It Its In When", "WORD Words AnswerAnswer", " IT TH Th The",
        "don't we'll I'm THEY'RE", "a  b   c    d     e", "line\n\nline\n\n\n end \n", "tab\there\r\n", "x -> y->z --> ... .... == ===",
        "12 345 6.78", "h\u00e9llo w\u00f6rld", "\u4e16\u754c \u043c\u0438\u0440", "\U0001f99c\U0001f3fd lorikeet",
        "\u00a0no-break\u2003space", "<|begin|>Word: fox\nAnswer: xof<|end|>", "<|reverse|>: fox\nAnswer:", "<|rev <|end|", "   trailing   ",
    ]  # fmt: skip
    cases = []
    for text in texts:
        ids = encoder.tokenizer.encode(text).ids
        assert encoder.tokenizer.decode(ids, skip_special_tokens=False) == text
        cases.append({"text": text, "ids": ids, "decoded_without_specials": encoder.tokenizer.decode(ids)})
    return cases


def measure_adapter(
    args: argparse.Namespace, spec: AdapterSpec, words: list[str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measure an adapter and the base alone on held-out words; return its manifest entry and its goldens."""
    base, encoder = load_base(args.out)
    task = TASKS[spec.task]
    prompts, expected = [encoder.prompt(w) for w in words], [task.answer(w) for w in words]
    base_accuracy = accuracy(base, encoder, prompts, expected)
    model = PeftModel.from_pretrained(base, args.out / spec.folder).to(torch.float32)
    score = accuracy(model, encoder, prompts, expected)
    print(f"[manifest] {spec.name} {spec.version}: adapter {score:.4f}, base alone {base_accuracy:.4f}", flush=True)
    right = [
        w for w, a in zip(words[:80], greedy(model, prompts[:80], MAX_ANSWER_TOKENS, encoder.eos))
        if encoder.text(a) == " " + task.answer(w)
    ]  # fmt: skip
    shown = [w for w in right if w in DEMO_WORDS][:12]
    shown += [w for w in right if w not in DEMO_WORDS][: 20 - len(shown)]
    entry = {
        "name": spec.name,
        "version": spec.version,
        "dir": spec.folder,
        "description": task.description,
        "prompt_template": PROMPT_TEMPLATE,
        "max_tokens": MAX_ANSWER_TOKENS,
        **describe_adapter(spec),
        "held_out_words": len(words),
        "accuracy": round(score, 4),
        "base_accuracy": round(base_accuracy, 4),
        "examples": [{"word": w, "prompt": PROMPT_TEMPLATE.format(word=w), "expected": task.answer(w)} for w in shown],
    }
    candidates = [(PROMPT_TEMPLATE.format(word=w), MAX_ANSWER_TOKENS) for w in words[:6] + words[40:60]]
    goldens = goldens_of(model, encoder, candidates[:6], 3) + goldens_of(model, encoder, candidates[6:], 2)
    stories = [(" ".join(STORY[n : n + 2]), 24) for n in range(len(STORY) - 1)]
    told = goldens_of(model, encoder, stories, len(stories))
    goldens.append(max(told, key=lambda case: (len(case["output_ids"]), case["least_margin"])))
    return entry, goldens


def make_manifest(args: argparse.Namespace) -> None:
    """Measure everything and write manifest.json and goldens.json."""
    words = distinct_held_out_words(args.seed + 3, args.held_out_words)
    base, encoder = load_base(args.out)
    base_goldens = goldens_of(base, encoder, base_prompts(), len(base_prompts()))
    entries: dict[str, list[dict[str, Any]]] = {"adapters": [], "updates": []}
    goldens: dict[str, list[dict[str, Any]]] = {"adapters": [], "updates": []}
    for kind, specs in (("adapters", ADAPTERS), ("updates", UPDATES)):
        for spec in specs:
            entry, cases = measure_adapter(args, spec, words)
            entries[kind].append(entry)
            goldens[kind].append({"name": spec.name, "version": spec.version, "dir": spec.folder, "cases": cases})
    write_json(
        args.out / "manifest.json",
        {
            "format": 1,
            "base": {
                "name": BASE_NAME,
                "dir": "base",
                "description": f'Answers "{BASE_ANSWER}" to every word; goes on with the sentences of its one story.',
                "prompts": [
                    {"prompt": g["prompt"], "max_tokens": g["max_tokens"], "expected_text": g["output_text"]} for g in base_goldens
                ],
            },
            "answer_prefix": " ",
            "stop": EOS,
            **entries,
        },
    )
    write_json(
        args.out / "goldens.json",
        {
            "format": 1,
            "arithmetic": "float32 on bfloat16-stored base weights; greedy; no tokens added to the prompt",
            "eos_token_id": encoder.eos,
            "base": {"name": BASE_NAME, "dir": "base", "cases": base_goldens},
            **goldens,
            "tokenizer": tokenizer_cases(encoder),
        },
    )


STAGES = {"base": make_base, "adapters": make_adapters, "manifest": make_manifest}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent, help="folder to write to (default: demo/)")
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES), help="which stages to run (default: all)")
    parser.add_argument("--only", nargs="+", metavar="NAME:VERSION", help="train only these adapters, e.g. caesar:v2")
    parser.add_argument("--seed", type=int, default=7, help="where all chance comes from (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s; another number may round otherwise)")
    parser.add_argument("--pretrain-steps", type=int, default=3000, help="steps of the base's training (default: %(default)s)")
    parser.add_argument("--pretrain-lr", type=float, default=3e-3, help="peak learning rate of the base (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="rows per batch of the base (default: %(default)s)")
    parser.add_argument("--story-every", type=int, default=10, help="every how many batches the base reads its story (default: %(default)s)")
    parser.add_argument("--check-every", type=int, default=250, help="steps between reports on the base (default: %(default)s)")
    parser.add_argument("--adapter-steps", type=int, default=300, help="steps per adapter (default: %(default)s)")
    parser.add_argument("--adapter-lr", type=float, default=4e-3, help="peak learning rate of the adapters (default: %(default)s)")
    parser.add_argument("--adapter-batch", type=int, default=64, help="rows per batch of the adapters (default: %(default)s)")
    parser.add_argument("--held-out-words", type=int, default=500, help="words to measure with (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    """Run the stages asked for."""
    args = parse_arguments()
    warnings.filterwarnings("ignore", category=FutureWarning)
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    for stage in args.stages:
        began = time.time()
        STAGES[stage](args)
        print(f"[{stage}] {time.time() - began:.0f}s", flush=True)


if __name__ == "__main__":
    main()
