"""The tokenizer of the embedded models: a symbol for each number up to 99, each sign, tag and word of their tasks."""

from __future__ import annotations

from hone.models.tokenizer import Tokenizer, word_tokenizer
from hone.rewards.format import TAGS
from hone.tasks import general
from hone.tasks.corpus import END, WORDS
from hone.tasks.numbers import QUESTION_WORDS

SIGNS = ("+", "-", "*", "/", "(", ")", "=", ",")
COUNTDOWN_WORDS = ("use", "make", "用", "得")

# Earlier answers are shown without their thinking, as R1's own template does.
CHAT_TEMPLATE = (
    """\
{% for message in messages %}
{% if message.role == 'user' %}
User: {{ message.content }}{{ ' ' }}
{%- elif message.role == 'assistant' %}
Assistant: {{ message.content.split('</think>')[-1].strip() }} """
    + END
    + """{{ ' ' }}
{%- else %}
{{- raise_exception('this model knows the roles user and assistant only') }}
{%- endif %}
{% endfor %}
{% if add_generation_prompt %}Assistant:{% endif %}"""
)


def tiny_tokenizer() -> Tokenizer:
    numbers = [str(number) for number in range(100)]
    corpus_words = [word for pair in WORDS.values() for phrase in pair for word in phrase.split()]
    words = dict.fromkeys([*numbers, *SIGNS, *COUNTDOWN_WORDS, *corpus_words, *QUESTION_WORDS, *general.words()])
    special = ("<unk>", END, "User:", "Assistant:", *TAGS)
    return word_tokenizer(list(words), special=special, eos=END, chat_template=CHAT_TEMPLATE)
