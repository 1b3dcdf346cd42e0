"""The base's shape, the training loop, and greedy decoding."""

from __future__ import annotations

import math
import time
from typing import Callable, Iterator

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from vocabulary import BOS, EOS, PAD

IGNORED = -100
Row = tuple[list[int], int]  # token ids, and how many of the first ones are not learned


def base_config(tokenizer: Tokenizer) -> LlamaConfig:
    """The tiny Llama: four layers, four query heads over two key/value heads."""
    return LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=1024,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        attention_bias=False,
        mlp_bias=False,
        bos_token_id=tokenizer.token_to_id(BOS),
        eos_token_id=tokenizer.token_to_id(EOS),
        pad_token_id=tokenizer.token_to_id(PAD),
    )


def collate(rows: list[Row], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad rows on the right; labels leave out the padding and each row's unlearned start."""
    width = max(len(ids) for ids, _ in rows)
    inputs = torch.full((len(rows), width), pad_id, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED, dtype=torch.long)
    for i, (ids, skip) in enumerate(rows):
        inputs[i, : len(ids)] = torch.tensor(ids)
        labels[i, skip : len(ids)] = torch.tensor(ids[skip:])
    return inputs, labels


def next_token_loss(model: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the learned tokens. Padding is on the right, so causality alone hides it."""
    logits = model(input_ids=inputs, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), ignore_index=IGNORED)


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then a cosine down to a hundredth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    along = (step - warmup) / max(1, steps - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * along)))


def train(
    model: torch.nn.Module,
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    steps: int,
    peak: float,
    warmup: int,
    weight_decay: float,
    check_every: int,
    check: Callable[[], str],
    label: str,
) -> None:
    """Train the parameters that want gradients, and print what `check` says now and then."""
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=peak, betas=(0.9, 0.98), weight_decay=weight_decay)
    began, running = time.time(), 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak, warmup)
        model.train()
        loss = next_token_loss(model, *next(batches))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        running += loss.item()
        if (step + 1) % check_every == 0 or step + 1 == steps:
            report, seconds = check(), time.time() - began
            mean = running / (step % check_every + 1)
            print(f"[{label}] step {step + 1}/{steps} loss {mean:.4f} {seconds:.0f}s {report}", flush=True)
            running = 0.0


@torch.no_grad()
def greedy(model: LlamaForCausalLM, prompts: list[list[int]], max_tokens: int, eos_id: int) -> list[list[int]]:
    """Greedy token ids after each prompt, up to and with the end token. Prompts of one length go together."""
    model.eval()
    answers: list[list[int]] = [[] for _ in prompts]
    by_length: dict[int, list[int]] = {}
    for i, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(i)
    for indices in by_length.values():
        step_input = torch.tensor([prompts[i] for i in indices])
        cache, finished = None, torch.zeros(len(indices), dtype=torch.bool)
        for _ in range(max_tokens):
            out = model(input_ids=step_input, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            best = out.logits[:, -1].argmax(-1)
            for row, index in enumerate(indices):
                if not finished[row]:
                    answers[index].append(int(best[row]))
            finished |= best == eos_id
            if bool(finished.all()):
                break
            step_input = best[:, None]
    return answers


@torch.no_grad()
def greedy_with_margin(model: LlamaForCausalLM, prompt: list[int], max_tokens: int, eos_id: int) -> tuple[list[int], float]:
    """Greedy ids after one prompt without any cache, and the least gap between best and second logit."""
    model.eval()
    ids, margin = list(prompt), math.inf
    for _ in range(max_tokens):
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        top = torch.topk(logits, 2)
        margin = min(margin, float(top.values[0] - top.values[1]))
        ids.append(int(top.indices[0]))
        if ids[-1] == eos_id:
            break
    return ids[len(prompt) :], margin
