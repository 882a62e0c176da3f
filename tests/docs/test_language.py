"""The project's language: standard terms, plain sentences, docstrings that begin with a verb, unique class names."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.docs.pages import ROOT

OWN: Final = Path(__file__).relative_to(ROOT)  # quotes the words that it looks for

PENDING: Final[frozenset[str]] = frozenset()
"""Rooms not yet rewritten; remove a line when a room passes.

``broker_auth`` and ``tests`` are the modules directly in these folders.
"""

# A phrase that the project does not use, and what to write instead. Lower case matches sentence starts too.
PHRASES: Final = {
    r"(?:^|[.:;!?)] +)(?:Who|What|Whoever|Whatever|Whichever|Whom|Whose)\b(?![^.]*\?)": "subject, verb, object",
    r"(?<!there )\b(?:is|are|was|were|be) no (?!longer\b|more\b|less\b|fewer\b|later\b|earlier\b)": "is not a",
    r"\b(?:is|are|was|were|has|have|had) (?-i:none)\b": "name what is missing",
    r"\bone (?:that|which|who)\b": "repeat the noun",
    r"\bso many\b": "a number, N",
    r"\banew\b": "again",
    r"\bof (?:its|their|his|her|our|your|one's) own\b": "its own …",
    r"\bother way round\b": "reversed",
    r"\bin (?:its |their )?turn\b|\b(?:a|each|one|per|this|next|same|every) turn\b|\bturn of\b": "batch",
    r"\burgen(?:t|tly|cy)\b": "priority",
    r"\bcrowds?\b": "high-water mark, under load",
    r"\b(?:im)?patien(?:ce|t)\b": "deadline, timeout",
    r"\bkeepers?\b": "connection task",
    r"\b(?:buried|bury|buries|mourn\w*)\b": "reaped, backoff",
    r"\blast words\b": "remaining output",
    r"\bnews\b": "change",
    r"\b(?<!documentation )sites?\b(?!-packages)": "deployment, testbed",
    r"\b(?:token)?holders?\b": "token subject, identity",
    r"\boracles?\b": "responder",
    r"\bdoors?\b|\bways? in\b(?! which)": "listener, login",
    r"\btied\b": "dies with its parent",
    r"\bnot repeated\b": "skipped",
    r"\bpass(?:es|ed|ing)? over\b": "skip, ignore",
    r"\bin vain\b": "without effect",
}

# An identifier that the project does not use, and the term of the field.
NAMES: Final = {
    "BrokerLink": "BrokerConnection",
    "Interest": "Subscription",
    "Notes": "Findings",
    "keepers": "connection tasks",
    "beat": "heartbeat",
    "heard": "last_seen",
    "silence": "timeout",
    "patience": "deadline, timeout",
    "urgency": "priority",
    "turn": "batch",
    "crowd": "high_water",
    "buried": "reaped",
    "oracle": "responder",
    "holder": "subject, identity",
    "holders": "identities",
    "site": "deployment, testbed",
    "said": "message",
    "told": "reported",
    "found": "matches, problems",
    "given": "args",
    "wanted": "expected",
}

# First words of a function's docstring: verbs in the imperative. A verb may be added; another word is no beginning.
VERBS: Final = frozenset(
    """
    Abort Accept Add Admit Advance Allow Answer Append Apply Ask Assert Attempt Await Begin Bind Build Cache Call
    Cancel Change Check Choose Claim Clear Close Collect Compare Compile Complete Compute Conclude Configure
    Connect Consume Continue Convert Copy Count Create Decide Decode Decrypt Define Delete Deliver Deny Derive
    Describe Detect Determine Disable Discard Disconnect Distribute Do Drain Draw Drop Dump Encode Encrypt End
    Enqueue Ensure Enter Enumerate Estimate Evict Examine Exchange Execute Exit Expect Expire Explain Export
    Extract Fail Fetch Fill Filter Find Finish Flush Follow Forget Fork Format Generate Get Give Group Guard Hand
    Handle Hash Hold Ignore Import Include Initialize Insert Inspect Install Interrupt Issue Iterate Join Judge
    Keep Kill Leave Let Limit List Listen Load Lock Log Look Make Map Mark Match Measure Merge Move Name Normalize
    Note Notify Observe Open Order Override Parse Pass Pause Peek Perform Pick Poll Prepare Present Print Process
    Produce Protect Provide Publish Put Queue Raise Read Receive Reconnect Record Redact Reduce Refuse Register
    Reject Release Reload Remember Remove Rename Render Reopen Repeat Replace Reply Report Request Require Reserve
    Reset Resolve Respond Restart Restore Restrict Resume Retire Retry Return Roll Rotate Round Run Save Scan
    Schedule Seal Search Select Send Serve Set Show Shut Sign Signal Simulate Skip Sort Spawn Split Start Stop
    Store Stream Strip Submit Subscribe Summarize Supervise Suppress Swap Take Tell Terminate Test Time Track
    Translate Trust Try Turn Undo Unlink Unsubscribe Update Use Validate Verify Wait Walk Warn Watch Wrap Write
    Yield
    """.split()  # noqa: SIM905 - a list of words
)

# First words that make a clause of a class's docstring, where a noun phrase says what it is.
NO_NOUN: Final = frozenset({"Who", "What", "Whoever", "Whether", "How", "Why", "Where", "When", "Which", "If", "That"})
_QUOTED: Final = re.compile(r"``[^`]*``|`[^`]*`")
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
_FENCED: Final = re.compile(r"^\s*```.*?^\s*```\s*$", re.MULTILINE | re.DOTALL)
_PATTERNS: Final = {
    re.compile(pattern, re.IGNORECASE): say for pattern, say in PHRASES.items() if "(?:^" not in pattern
}
_STARTS: Final = {re.compile(pattern): say for pattern, say in PHRASES.items() if "(?:^" in pattern}


class Prose(NamedTuple):
    """A text of ours and the line where it begins."""

    line: int
    text: str


def room(path: Path) -> str:
    """Return the room of a file, given relative to the root."""
    if len(path.parts) == 1:
        return "."
    if path.parts[0] in ("broker_auth", "tests"):
        return "/".join(path.parts[: min(2, len(path.parts) - 1)])
    return path.parts[0]


@cache
def files() -> list[Path]:
    """Return every source file and page, relative to the root."""
    sources = [path for folder in ("broker_auth", "tests", "examples") for path in (ROOT / folder).rglob("*.py")]
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md"), *ROOT.glob("*.md")]
    return [path.relative_to(ROOT) for path in sorted(sources + pages) if path.relative_to(ROOT) != OWN]


@cache
def headings() -> frozenset[str]:
    """Return the headings of all pages, which tests quote."""
    pages = [(ROOT / path).read_text(encoding="utf-8") for path in files() if path.suffix == ".md"]
    return frozenset(heading for page in pages for heading in _HEADING.findall(page))


@cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a source file."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def prose(path: Path) -> Iterator[Prose]:
    """Yield what people read in a file: paragraphs of a page; comments, strings and names of tests of a source file."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.suffix == ".md":
        blank = _FENCED.sub(lambda match: "\n" * match.group().count("\n"), text)
        yield from (Prose(number, line) for number, line in enumerate(blank.splitlines(), start=1))
        return
    yield from comments(text)
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            if node.value in headings():  # quoted
                continue
            for paragraph in re.split(r"\n\s*\n", node.value):
                yield Prose(node.lineno, " ".join(paragraph.split()))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            name = node.name.removeprefix("test_").replace("_", " ")
            yield Prose(node.lineno, name[:1].upper() + name[1:])


def comments(source: str) -> Iterator[Prose]:
    """Yield the comments of a source, those on consecutive lines as one."""
    if "#" not in source:  # reading tokens takes most of the time of this test
        return
    begin, last, words = 0, 0, ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        alone = not token.line[: token.start[1]].strip()
        if words and alone and token.start[0] == last + 1:
            words += " " + token.string.lstrip("# ")
        else:
            if words:
                yield Prose(begin, words)
            begin, words = token.start[0], token.string.lstrip("# ")
        last = token.start[0]
    if words:
        yield Prose(begin, words)


def unplain(text: str) -> Iterator[str]:
    """Yield the phrases in ``text`` that the project does not use, each with what to write instead."""
    plain = _QUOTED.sub("x", text)
    for patterns in (_PATTERNS, _STARTS):
        for pattern, say in patterns.items():
            yield from (f"{match.group().strip()!r} -> {say}" for match in pattern.finditer(plain))


def identifiers(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the names that a source file defines."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def docstrings(path: Path) -> Iterator[str]:
    """Yield the docstrings of functions without a leading verb, and those of classes that do not name a thing."""
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if not (docstring := ast.get_docstring(node)) or node.name.startswith("test_"):
            continue
        first = docstring.split()[0].rstrip(".,:;")
        if isinstance(node, ast.ClassDef):
            wrong = first in NO_NOUN or (first.endswith("s") and first[:-1] in VERBS)  # "Signs …"
        elif is_property(node):
            wrong = first in NO_NOUN - {"Whether"}
        else:
            wrong = first not in VERBS
        if wrong:
            yield f"{path}:{node.lineno}: {node.name}: {docstring.splitlines()[0]}"


def is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a function is read like an attribute."""
    return any(ast.unparse(decorator).endswith("property") for decorator in node.decorator_list)


def finished() -> list[Path]:
    """Return the files of the rooms that have been rewritten."""
    return [path for path in files() if room(path) not in PENDING]


def test_phrases_are_plain_english() -> None:
    problems = [
        f"{path}:{line}: {phrase}" for path in finished() for line, text in prose(path) for phrase in unplain(text)
    ]
    assert not problems, "\n".join(problems)


def test_identifiers_are_the_terms_of_the_field() -> None:
    problems = [
        f"{path}:{line}: {name} -> {NAMES[plain]}"
        for path in finished()
        if path.suffix == ".py"
        for line, name in identifiers(path)
        if (plain := name.lstrip("_")) in NAMES
    ]
    assert not problems, "\n".join(problems)


def test_docstrings_begin_with_a_verb_or_name_a_thing() -> None:
    problems = [problem for path in finished() if path.suffix == ".py" for problem in docstrings(path)]
    assert not problems, "\n".join(problems)


def test_leading_words_of_docstrings_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    good = 'class A:\n    """A signer of tokens."""\n\n    def sign(self):\n        """Sign a token."""\n'
    path.write_text(good)
    assert not list(docstrings(path))
    for noun, verb in (("A signer of", "Signs"), ("A signer of", "What signs"), ("Sign a", "The signed")):
        tree.cache_clear()
        path.write_text(good.replace(noun, verb))
        assert len(list(docstrings(path))) == 1, verb


def test_class_names_are_unique() -> None:
    places = defaultdict(list)
    for path in files():
        if path.parts[0] == "broker_auth":
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(str(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_pending_rooms_exist() -> None:
    assert {room(path) for path in files()} >= PENDING


@pytest.mark.parametrize(
    "text",
    [
        "Who is alone needs no place in a line.",
        "Read the file. What is no token is denied.",
        "That is no token.",
        "The keys of a fleet, or of its own.",
        "There is none.",
        "Requests are answered in turn.",
        "So many are concluded together.",
        "Render its configuration anew.",
        "The urgent first.",
    ],
)
def test_private_language_is_detected(text: str) -> None:
    assert list(unplain(text))


@pytest.mark.parametrize(
    "text",
    [
        "There is no file; nothing else is None.",
        "It is no longer used.",
        "What is it?",
        "A sentence with ``so many`` quoted.",
        "The documentation site.",
        "Turn it off.",
    ],
)
def test_plain_english_passes(text: str) -> None:
    assert not list(unplain(text))


def test_comments_on_consecutive_lines_are_one_text() -> None:
    assert list(comments("x = 1  # one\n# two\n# three\n\n# four\n")) == [(1, "one two three"), (5, "four")]
