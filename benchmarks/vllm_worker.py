"""Generates by vLLM in a process of its own: reads one request a line, answers each with the seconds that it took.

It runs in vLLM's own virtual environment, so it imports nothing of Hone. `rollout` stops the process by a signal while
others are timed.
"""

import json
import os
import sys
import time


def main() -> None:
    folder, mode = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM writes to the standard output
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "4"}
    import vllm

    model = vllm.LLM(
        model=folder, dtype="float32", max_model_len=1024, max_num_seqs=256, enforce_eager=mode == "eager",
        skip_tokenizer_init=True, enable_prefix_caching=True,
    )  # fmt: skip
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        params = vllm.SamplingParams(
            n=request["num_samples"], max_tokens=request["num_tokens"], temperature=1.0, ignore_eos=True,
            detokenize=False, seed=None,
        )  # fmt: skip
        prompts = [{"prompt_token_ids": ids} for ids in request["prompts"]]
        start = time.perf_counter()
        groups = model.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - start
        assert all(len(one.token_ids) == request["num_tokens"] for group in groups for one in group.outputs)
        print(json.dumps(seconds), file=answers, flush=True)


if __name__ == "__main__":
    main()
