"""Text to ids and back, and conversations to prompts.

A tokenizer is a folder's `tokenizer.json` with the special tokens of `tokenizer_config.json` and the model's own chat
template. Templates come with a model and are not trusted: they run in Jinja's sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import tokenizers
from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, models, pre_tokenizers

from hone.types import HoneError, Message

# DeepSeek-R1, table 1. It fixes the structure of an answer and nothing else.
R1_ZERO_TEMPLATE = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> "
    "reasoning process here </think> <answer> answer here </answer>. User: {prompt}. Assistant:"
)


class Tokenizer:
    """Encodes, decodes and renders for one model."""

    def __init__(
        self,
        core: tokenizers.Tokenizer,
        *,
        eos: str,
        pad: str | None,
        chat_template: str | None,
        bos: str | None = None,
    ) -> None:
        self.core = core
        self.eos, self.pad, self.bos, self.chat_template = eos, pad or eos, bos, chat_template
        eos_id = core.token_to_id(eos)
        if eos_id is None:
            raise HoneError(f"tokenizer: the end token {eos!r} is not in the vocabulary")
        self.eos_id: int = eos_id

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read a model folder; refuse one whose tokenizer or end token is missing."""
        core_file = folder / "tokenizer.json"
        if not core_file.is_file():
            raise HoneError(f"{folder}: no tokenizer.json there; save the tokenizer in the `tokenizers` format first")
        settings_file = folder / "tokenizer_config.json"
        settings = json.loads(settings_file.read_text("utf-8")) if settings_file.is_file() else {}
        template_file = folder / "chat_template.jinja"
        template = template_file.read_text("utf-8") if template_file.is_file() else settings.get("chat_template")
        eos = _content(settings.get("eos_token"))
        if eos is None:
            raise HoneError(f"{settings_file}: no eos_token there, so nothing would end a completion")
        core = tokenizers.Tokenizer.from_file(str(core_file))
        pad, bos = _content(settings.get("pad_token")), _content(settings.get("bos_token"))
        return cls(core, eos=eos, pad=pad, chat_template=template, bos=bos)

    def save(self, folder: Path) -> None:
        self.core.save(str(folder / "tokenizer.json"))
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": self.eos,
            "pad_token": self.pad,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 1_000_000,
        } | ({"bos_token": self.bos} if self.bos else {})
        (folder / "tokenizer_config.json").write_text(
            json.dumps(settings, indent=2, ensure_ascii=False) + "\n", "utf-8"
        )
        if self.chat_template is not None:
            (folder / "chat_template.jinja").write_text(self.chat_template, "utf-8")

    @cached_property
    def _chat(self) -> Template:
        if self.chat_template is None:
            raise HoneError('the model has no chat template; use template = "r1-zero", or add a chat_template.jinja')
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _raise
        return environment.from_string(self.chat_template)

    @property
    def vocab_size(self) -> int:
        return self.core.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, special tokens recognised and none added."""
        return self.core.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, tags and other special tokens kept, the end token left out."""
        return self.core.decode([i for i in ids if i != self.eos_id], skip_special_tokens=False)

    def unknown_words(self, text: str) -> list[str]:
        """Return the words that the vocabulary has no symbol for; none where any text can be spelled."""
        unknown = getattr(self.core.model, "unk_token", None)
        unknown_id = self.core.token_to_id(unknown) if unknown else None
        return [] if unknown_id is None else [word for word in text.split() if unknown_id in self.encode(word)]

    def render(self, messages: Sequence[Message], template: str = "chat") -> str:
        """Return a conversation as a prompt that ends where the assistant's answer begins.

        `chat` is the model's own template; `r1-zero` the paper's, which takes the last user message alone.
        """
        if template == "r1-zero":
            return R1_ZERO_TEMPLATE.format(prompt=messages[-1].content)
        try:
            return self._chat.render(
                messages=[{"role": message.role, "content": message.content} for message in messages],
                add_generation_prompt=True,
                eos_token=self.eos,
                bos_token=self.bos or "",
            )
        except TemplateError as error:
            raise HoneError(f"the model's chat template refused the conversation: {error}") from error


def word_tokenizer(words: Sequence[str], *, special: Sequence[str], eos: str, chat_template: str) -> Tokenizer:
    """Make a tokenizer whose every symbol is a word between spaces; the first special one stands for unknown words."""
    vocabulary = {word: index for index, word in enumerate([*special, *words])}
    if len(vocabulary) != len(special) + len(words):
        raise ValueError("a word stands twice in the vocabulary")
    core = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=special[0]))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (*special[:1], eos)])
    return Tokenizer(core, eos=eos, pad=eos, chat_template=chat_template)


def _content(token: str | dict[str, str] | None) -> str | None:
    return token["content"] if isinstance(token, dict) else token


def _raise(message: str) -> None:
    raise TemplateError(message)
