"""The embedded base model is what its recipe makes, small, and loads elsewhere as its card says."""

from __future__ import annotations

import json

import pytest
import torch

from hone.models.folders import find_model
from hone.models.loading import load_model, read_config
from hone.models.tiny import tiny_tokenizer
from hone.models.tokenizer import Tokenizer
from hone.types import HoneError, Message

FOLDER = find_model("base-tiny")
QUESTION = Message(role="user", content="use 3 8 8 make 61")


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 5_000_000
    assert 500_000 <= sum(parameter.numel() for parameter in load_model(FOLDER).parameters()) <= 1_000_000


def test_its_tokenizer_is_the_one_that_the_recipe_makes() -> None:
    shipped, made = Tokenizer.load(FOLDER), tiny_tokenizer()
    assert json.loads(shipped.core.to_str()) == json.loads(made.core.to_str())
    assert (shipped.chat_template, shipped.eos_id) == (made.chat_template, made.eos_id)
    assert read_config(FOLDER).vocab_size == made.vocab_size


def test_the_chat_template_drops_earlier_thinking() -> None:
    tokenizer = Tokenizer.load(FOLDER)
    answer = Message(role="assistant", content="<think> try </think> <answer> 3 </answer>")
    assert tokenizer.render([QUESTION]) == "User: use 3 8 8 make 61 Assistant:"
    rendered = tokenizer.render([QUESTION, answer, QUESTION])
    first, last = (
        "User: use 3 8 8 make 61 Assistant: <answer> 3 </answer> <|end|> ",
        "User: use 3 8 8 make 61 Assistant:",
    )
    assert rendered == first + last
    with pytest.raises(HoneError, match="user and assistant only"):
        tokenizer.render([Message(role="system", content="be brief"), QUESTION])


def test_the_papers_template_takes_the_question_alone() -> None:
    rendered = tiny_tokenizer().render([QUESTION], "r1-zero")
    assert rendered.startswith("A conversation between User and Assistant.")
    assert rendered.endswith("User: use 3 8 8 make 61. Assistant:")


def test_transformers_reads_it_as_the_card_says() -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(FOLDER).eval()
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(FOLDER)
    ids = Tokenizer.load(FOLDER).encode("User: use 3 8 8 make 61 Assistant:")
    assert tokenizer("User: use 3 8 8 make 61 Assistant:")["input_ids"] == ids
    ours = load_model(FOLDER)
    with torch.inference_mode():
        batch = torch.tensor([ids])
        torch.testing.assert_close(ours.logits(ours(batch)), theirs(batch).logits, atol=1e-5, rtol=0)
