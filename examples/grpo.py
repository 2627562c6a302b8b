"""GRPO in one file: R1-Zero on the embedded base model, with nothing between the formula and the tensors.

    .venv/bin/python examples/grpo.py --steps 12

It takes from the package what is not the algorithm: the decoder, the tokenizer, the problems, the reward. It leaves out
what a run needs and a formula does not: batching without waste, resuming, records, a KL penalty. The package's loop is
`hone/stages/rl.py`; `tests/parity/test_example.py` holds both to the same loss and gradients.
"""

from __future__ import annotations

import argparse
import random

import torch
from torch import Tensor

from hone.models.decoder import Decoder
from hone.models.folders import find_model
from hone.models.loading import load_model
from hone.models.tokenizer import Tokenizer
from hone.rewards.compose import score
from hone.tasks import problems
from hone.types import RewardRule, Verdict

CLIP = 0.2


def sample(model: Decoder, prompt: list[int], group_size: int, max_tokens: int, eos: int) -> Tensor:
    """Return a group of outputs [G, T] of one prompt, padded with the end token, the whole sequence anew each step."""
    ids = torch.tensor([prompt] * group_size)
    done = torch.zeros(group_size, dtype=torch.bool)
    with torch.inference_mode():
        for _ in range(max_tokens):
            probs = model.logits(model(ids)[:, -1]).softmax(-1)
            drawn = torch.multinomial(probs, 1)[:, 0].masked_fill(done, eos)
            ids = torch.cat([ids, drawn[:, None]], 1)
            done |= drawn == eos
            if done.all():
                break
    return ids[:, len(prompt) :].clone()


def logprobs_of(model: Decoder, prompt: list[int], outputs: Tensor) -> Tensor:
    """Return the log-probability of each token of a group's outputs, [G, T]."""
    ids = torch.cat([torch.tensor([prompt] * len(outputs)), outputs], 1)
    logits = model.logits(model(ids[:, :-1]))[:, len(prompt) - 1 :]
    return logits.log_softmax(-1).gather(-1, outputs[..., None])[..., 0]


def advantages_of(rewards: Tensor) -> Tensor:
    """Return (r - mean) / std [G]; equal rewards give no signal."""
    deviation = rewards.std(correction=0)
    return (rewards - rewards.mean()) / deviation if deviation > 1e-6 else torch.zeros_like(rewards)


def grpo_loss(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """Return the loss of one group: DeepSeek-R1, equation 1, without the KL term.

    `logprobs`, `old_logprobs`, `mask` [G, T]; `advantages` [G]. Averaged inside each output, then over the group.
    """
    ratio = (logprobs - old_logprobs).exp()
    advantages = advantages[:, None]
    objective = torch.minimum(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages)
    return -((objective * mask).sum(1) / mask.sum(1)).mean()


def completion_mask(outputs: Tensor, eos: int) -> Tensor:
    """Return 1 for each token up to and including the first end token, [G, T]."""
    ended_before = (outputs == eos).long().cumsum(1) - (outputs == eos).long()
    return (ended_before == 0).float()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=12)
    options.add_argument("--problems-per-step", type=int, default=16)
    options.add_argument("--group-size", type=int, default=8)
    options.add_argument("--max-tokens", type=int, default=96)
    options.add_argument("--learning-rate", type=float, default=5e-4)
    args = options.parse_args()

    torch.manual_seed(0)
    folder = find_model("base-tiny")
    model, tokenizer = load_model(folder), Tokenizer.load(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    questions = problems("countdown", split="train", count=1600, seed=0)
    rng = random.Random(0)

    for step in range(args.steps):
        rewards_seen, right, lengths = [], [], []
        for problem in rng.sample(questions, args.problems_per_step):
            prompt = tokenizer.encode(tokenizer.render(problem.messages))
            outputs = sample(model, prompt, args.group_size, args.max_tokens, tokenizer.eos_id)
            mask = completion_mask(outputs, tokenizer.eos_id)
            texts = [tokenizer.decode(row[kept > 0].tolist()) for row, kept in zip(outputs, mask, strict=True)]
            scores = [score(problem, text, RewardRule()) for text in texts]
            rewards = torch.tensor([found.reward for found in scores])
            # One update a step: the sampling policy is the policy, and the ratio is 1 where its gradient is taken.
            logprobs = logprobs_of(model, prompt, outputs)
            loss = grpo_loss(logprobs, logprobs.detach(), advantages_of(rewards), mask)
            (loss / args.problems_per_step).backward()
            rewards_seen.append(rewards.mean())
            right += [found.verdict is Verdict.RIGHT for found in scores]
            lengths.append(mask.sum(1).mean())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        reward, length = torch.stack(rewards_seen).mean(), torch.stack(lengths).mean()
        print(
            f"step {step + 1}  reward {reward:.3f}  right {sum(right) / len(right):.3f}  length {length:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
