"""What a Markdown document says that can be checked: links, headings, code; for the tests.

Parsed by `markdown-it-py`, as CommonMark with tables. Pure: texts go in.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token

_PARSER = MarkdownIt("commonmark").enable("table")
_HERE_DOCUMENT = re.compile(r"<<-?\s*(['\"]?)(\w+)\1.*?^\s*\2$", re.DOTALL | re.MULTILINE)
_SETTING = re.compile(r"[A-Za-z_]\w*=.*")
_REDIRECTION = re.compile(r"[<>]+&?")
_SEPARATOR = re.compile(r"[|&;()]+")

Command = tuple[str, ...]
"""A program and its arguments."""


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        language: The word behind the fence, or nothing.
        text: What is in it.
    """

    language: str
    text: str


@dataclass(frozen=True)
class Document:
    """What one document refers to.

    Attributes:
        links: Where its links and images point.
        anchors: What a link into it may name, as GitHub makes it of the headings.
        spans: Its code within text.
        blocks: Its fenced code.
    """

    links: tuple[str, ...]
    anchors: frozenset[str]
    spans: tuple[str, ...]
    blocks: tuple[Block, ...]


def parse(text: str) -> Document:
    """Read a document."""
    tokens = _PARSER.parse(text)
    inline = [each for token in tokens for each in token.children or ()]
    pointing = (each.attrGet("href") or each.attrGet("src") for each in inline)
    return Document(
        links=tuple(str(link) for link in pointing if link),
        anchors=frozenset(_anchors(tokens)),
        spans=tuple(each.content for each in inline if each.type == "code_inline"),
        blocks=tuple(Block(each.info, each.content) for each in tokens if each.type == "fence"),
    )


def commands(text: str) -> Iterator[Command]:
    """Yield the commands of a shell text, without settings, redirections and here-documents.

    What a shell would not take, prose in a span for one, yields nothing.
    """
    for line in _HERE_DOCUMENT.sub("", text).replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:
            continue
        yield from _split(words)


def _split(words: list[str]) -> Iterator[Command]:
    command: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if _SEPARATOR.fullmatch(word):
            yield from _whole(command)
            command = []
        elif _REDIRECTION.fullmatch(word):
            next(remaining, None)
        elif command or not _SETTING.fullmatch(word):
            command.append(word)
    yield from _whole(command)


def _whole(command: list[str]) -> Iterator[Command]:
    if command:
        yield tuple(command)


def _anchors(tokens: list[Token]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for opening, content in pairwise(tokens):
        if opening.type == "heading_open":
            said = "".join(each.content for each in content.children or ())
            slug = re.sub(r"[^\w\- ]", "", said.lower()).replace(" ", "-")
            repeats = seen[slug] = seen.get(slug, -1) + 1
            yield f"{slug}-{repeats}" if repeats else slug
