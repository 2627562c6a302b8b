"""The embedded models are what their recipes make, small, and load elsewhere as their cards say."""

from __future__ import annotations

import json

import pytest
import torch

from hone.config import SftStage, Shape, load_recipe
from hone.models.folders import EMBEDDED, find_model
from hone.models.loading import load_model, read_config
from hone.models.tiny import tiny_tokenizer
from hone.models.tokenizer import Tokenizer
from hone.types import HoneError, Message

QUESTION = Message(role="user", content="use 3 8 8 make 61")
MADE_BY = {
    "base-tiny": ("base-tiny", "pretrain"),
    "student-qwen2-tiny": ("students-tiny", "qwen2"),
    "student-llama-tiny": ("students-tiny", "llama"),
}


def num_parameters(name: str) -> int:
    return sum(parameter.numel() for parameter in load_model(find_model(name)).parameters())


@pytest.mark.parametrize("name", EMBEDDED)
def test_it_has_the_shape_that_its_recipe_makes(name: str) -> None:
    recipe, stage = MADE_BY[name]
    made = next(found for found in load_recipe(recipe).stage if found.name == stage)
    assert isinstance(made, SftStage)
    assert isinstance(made.start_from, Shape)
    config = read_config(find_model(name))
    assert {key: getattr(config, key) for key in Shape.model_fields} == made.start_from.model_dump()
    assert config.tie_word_embeddings


def test_they_are_small_and_the_students_smaller() -> None:
    assert set(EMBEDDED) == set(MADE_BY)
    assert sum(file.stat().st_size for name in EMBEDDED for file in find_model(name).iterdir()) < 6_000_000
    # Two families: the base and one student are of the same, with which it shares its vocabulary too.
    assert [read_config(find_model(name)).model_type for name in MADE_BY] == ["llama", "qwen2", "llama"]
    base, qwen2, llama = map(num_parameters, MADE_BY)
    assert 500_000 <= base <= 1_000_000
    assert qwen2 < llama < 0.7 * base


@pytest.mark.parametrize("name", EMBEDDED)
def test_its_tokenizer_is_the_one_that_the_recipe_makes(name: str) -> None:
    shipped, made = Tokenizer.load(find_model(name)), tiny_tokenizer()
    assert json.loads(shipped.core.to_str()) == json.loads(made.core.to_str())
    assert (shipped.chat_template, shipped.eos_id) == (made.chat_template, made.eos_id)
    assert read_config(find_model(name)).vocab_size == made.vocab_size


@pytest.mark.parametrize("name", EMBEDDED)
def test_its_card_says_what_it_is(name: str) -> None:
    card = (find_model(name) / "README.md").read_text("utf-8")
    assert f"{num_parameters(name):,} parameters" in card
    assert f"{tiny_tokenizer().vocab_size} symbols" in card
    assert "license: mit" in card


def test_the_chat_template_drops_earlier_thinking() -> None:
    tokenizer = Tokenizer.load(find_model("base-tiny"))
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


@pytest.mark.parametrize("name", EMBEDDED)
def test_transformers_reads_it_as_the_card_says(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    folder = find_model(name)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    ids = Tokenizer.load(folder).encode("User: use 3 8 8 make 61 Assistant:")
    assert tokenizer("User: use 3 8 8 make 61 Assistant:")["input_ids"] == ids
    ours = load_model(folder)
    with torch.inference_mode():
        batch = torch.tensor([ids])
        torch.testing.assert_close(ours.logits(ours(batch)), theirs(batch).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", EMBEDDED)
def test_its_weights_do_not_lie_where_their_file_has_them(name: str) -> None:
    # Products differ in their last bits by the alignment of what they are made of.
    assert {parameter.data_ptr() % 64 for parameter in load_model(find_model(name)).parameters()} == {0}
