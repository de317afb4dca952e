"""The words of this project, held by a machine: banned patterns, terms, and how long a sentence may be.

Each rule names what to write instead. `python -m tests.support.plain_words [PATH ...]` prints every hit. The rules are
docs/developers/style.md in code; tests/unit/test_plain_words.py holds the whole repository against them.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAX_WORDS = 30


@dataclass(frozen=True)
class Rule:
    """A pattern that no text may hold, and what to write instead."""

    name: str
    pattern: re.Pattern[str]
    instead: str


def _rule(name: str, pattern: str, instead: str) -> Rule:
    return Rule(name, re.compile(pattern), instead)


_PER = (
    r"negatives?|rows?|tokens|examples|steps?|vectors?|shards?|texts?|hits|candidates|requests?|"
    r"seconds|bytes|files?|GPUs?|"
    r"micro-batch(?:es)?|batches|queries|columns|parts|processes|objects|copies|copy|lines?|"
    r"documents|dimensions|replicas|attempts?"
)
_UNIT = (
    r"row|step|source|query|text|core|worker|line|second|minute|micro-batch|token|epoch|day|"
    r"group|kind|request|dimension|"
    r"GPU|parameter|job|class|task|shard|team|node|file|hit|model|run|pod|copy|attempt|part"
)
RULES = (
    _rule(
        "what as a noun",
        r"(?:^|[.;:,(] |\b(?:says?|is|of|from|with|to|in|by|and|for|as|keeps?|knows?) )what (?:is|"
        r"was|it|they|a|the|he|of|comes?|"
        r"came|has|had|can|cannot|may|there|one|each|every|no|stands|goes|went|waits|fails?|this|"
        r"that|these|other|she|you|we)\b(?![^.]*\?)",
        "name the thing: 'lost steps', not 'what is lost'",
    ),
    _rule(
        "where for if",
        r"\bwhere (?:it|they|that|there|the|a|an|all|no|nobody|nothing|one|none|each|its|their|"
        r"those|these|this|some|any|many|"
        r"Ray|Kubernetes|workers|nodes|so|needed|known)\b",
        "'if' or 'when' for a condition; 'in which' or 'that' for a place",
    ),
    _rule("a for per", rf"\b(?:{_PER}) an? (?:{_UNIT})\b", "'per': 24 negatives per row"),
    _rule(
        "image",
        r"\b(?:mend(?:s|ed|ing)?|doors?|(?:last|first|driver's) words?|without a word|no word|(?:is|"
        r"are|was|were) (?:not )?heard|"
        r"hears?|silen(?:t|ce)|gone on with|go(?:es)? on\b|going on\b|went on\b|taken? up|give(?:s|"
        r"n)? way|gave way|says? no\b|stays? away|"
        r"comes? to exist|by halves|anew|forever|for ever|in vain|sights?|whoever|beside|"
        r"behind(?! (?:a|the|an) (?:\w+ )?(?:proxy|balancer)))\b",
        "resume, fix, during, compared with, after, heartbeat, unreachable, preempted, the only module that imports X",
    ),
    _rule(
        "is no",
        r"(?<!there )(?<!There )\b(?:is|are|was|were|be) (?:no|none)\b(?! longer)(?! more)",
        "'is not a', 'there is no'",
    ),
    _rule(
        "ellipsis",
        r"(?:[Oo]therwise|[Ee]lse) (?:the |its |by |that |those |all |one |a |an |"
        r"\$)[^.;]{0,40}(?:'s|own|names|core|rows|same)[.;]",
        "'Default: ...'",
    ),
    _rule(
        "term: job spec",
        r"\b(?:effective|frozen|job|valid|invalid|whole) documents?\b|\bdocument's (?:fields?|spec|"
        r"cluster|workers|name|data)\b|"
        r"\bfields? of (?:the|a|this) document\b|\b(?:this|the) document (?:says|asks|names|gives|sets|leaves)\b",
        "the job file is a 'job spec'; a document is a text of a corpus",
    ),
    _rule(
        "term",
        r"\b(?:folders?|licen[c]es?|whole numbers?|(?:[Oo]ptim|[Tt]oken|[Rr]ecogn|[Qq]uant|"
        r"[Nn]ormal|[Ss]erial|[Oo]rgan|[Ss]ynchron)is(?:e|es|ed|"
        r"ing|er|ers|ation)|[Bb]ehaviour|[Cc]olours?|[Nn]eighbours?|[Cc]atalogue|cancelled|"
        r"custom resource definition type)\b",
        "directory, license, integer, and American spelling as in the libraries' APIs",
    ),
)
_SUFFIXES = {".py", ".md", ".yaml", ".txt", ".tpl", ".sh"}
_WORDS_IN_CODE = re.compile(r"`[^`]*`|\{[^{}]*\}|<[^<>\s]*>")


@dataclass(frozen=True)
class Text:
    """A piece of prose and its place."""

    path: Path
    line: int
    words: str
    counted: bool
    """Whether its sentences have a limit: docs, help texts, schemas and messages, not comments and docstrings."""


@dataclass(frozen=True)
class Hit:
    """A place that breaks a rule."""

    rule: str
    path: Path
    line: int
    found: str
    instead: str

    def __str__(self) -> str:
        path = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        return f"{path}:{self.line}: {self.rule}: {self.found!r} ({self.instead})"


def hits(texts: Iterable[Text]) -> Iterator[Hit]:
    """Everything in the texts that breaks a rule."""
    for text in texts:
        plain = _WORDS_IN_CODE.sub("`x`", text.words)
        for rule in RULES:
            for found in rule.pattern.finditer(plain):
                yield Hit(rule.name, text.path, text.line, found.group(0).strip(), rule.instead)
        if text.counted:
            for sentence in sentences(plain):
                if (length := len(sentence.split())) > MAX_WORDS:
                    yield Hit(
                        "long sentence", text.path, text.line, " ".join(sentence.split()[:8]) + " ...",
                        f"{length} words, at most {MAX_WORDS}",
                    )  # fmt: skip


def sentences(text: str) -> list[str]:
    """Split at full stops, question marks and exclamation marks."""
    return re.split(r"(?<=[.!?])\s+(?=\S)", text)


def prose(path: Path) -> list[Text]:
    """The prose of a file: Markdown without code, strings and comments of Python, comments of YAML and shell."""
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return list(_of_markdown(path, content))
    if path.suffix == ".py":
        return list(_of_python(path, content))
    if path.suffix == ".txt":
        return [Text(path, 1, content, counted=False)]
    return [
        Text(path, number, line[line.index("#") :], counted=False)
        for number, line in enumerate(content.splitlines(), 1)
        if re.search(r"(?:^|\s)#", line)
    ]


def _of_markdown(path: Path, content: str) -> Iterator[Text]:
    """Paragraphs, list items, headings and cells of tables; a list item or a cell is a text of its own."""
    block: list[str] = []
    first, code = 1, False

    def text() -> Iterator[Text]:
        words = re.sub(r"\]\([^)]*\)", "]", " ".join(block))
        if words.strip():
            yield Text(path, first, words, counted=True)
        block.clear()

    for number, line in enumerate(content.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith(("```", ":::")):
            yield from text()
            code = not code if stripped.startswith("```") else code
            continue
        if code or stripped.startswith("<!--"):
            continue
        if not stripped or re.match(r"(?:[-*+]|\d+\.|#+|\||>)\s|\|", stripped):
            yield from text()
        if not stripped:
            continue
        if stripped.startswith("|"):
            for cell in re.split(r"(?<!\\)\|", stripped):
                if re.search(r"\w", cell):
                    yield Text(path, number, re.sub(r"\]\([^)]*\)", "]", cell.strip()), counted=True)
            continue
        if not block:
            first = number
        block.append(re.sub(r"^(?:[-*+]|\d+\.|#+|>)\s+", "", stripped))
        if stripped.startswith("#"):
            yield from text()
    yield from text()


def _of_python(path: Path, content: str) -> Iterator[Text]:
    tree = ast.parse(content)
    nodes = list(ast.walk(tree))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        words = _words_of(node)
        if " " in words.strip() and id(node) not in parts:
            counted = id(node) not in docstrings and _is_prose(words)
            yield Text(path, node.lineno, " ".join(words.split()), counted=counted)  # type: ignore[attr-defined]
    for token in tokenize.generate_tokens(io.StringIO(content).readline):
        if token.type == tokenize.COMMENT:
            yield Text(path, token.start[0], token.string, counted=False)


def _words_of(node: ast.AST) -> str:
    """The text of a string, in which `x` stands for the values of an f-string. Empty for other nodes."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_words_of(part) or "`x`" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _is_prose(text: str) -> bool:
    """Whether a string is a sentence for a reader, not code, a query or a template."""
    return not re.search(r"[{}\\]|\b(?:SELECT|import|def|sum by|rate\()|^\s*<", text)


def repository_files(root: Path = ROOT) -> list[Path]:
    """The files that the rules hold for. Measurements and generated pages follow from others."""
    found = [
        root / "README.md",
        root / "CHANGELOG.md",
        root / "CONTRIBUTING.md",
        root / "SECURITY.md",
        root / "Makefile",
    ]
    found += [path for path in (root / "docs").rglob("*.md") if "studies" not in path.parts]
    for folder in ("data_io", "ray_app", "applications", "jobs", "tools", "bench"):
        found += (root / folder).rglob("*.py")
    for pattern in (
        "helm/**/*.yaml",
        "helm/**/*.md",
        "helm/**/NOTES.txt",
        "helm/**/*.tpl",
        "k8s/samples/*.yaml",
        "tools/*.sh",
    ):
        found += [path for path in root.glob(pattern) if "crds" not in path.parts and path.name != "crd.yaml"]
    return sorted(path for path in set(found) if path.is_file())


def main(arguments: list[str]) -> int:
    asked = [Path(argument).resolve() for argument in arguments]
    found = [path for each in asked for path in (sorted(each.rglob("*")) if each.is_dir() else [each])]
    files = (
        [path for path in found if path.suffix in _SUFFIXES or path.name == "Makefile"] if asked else repository_files()
    )
    all_hits = [hit for path in files for hit in hits(prose(path))]
    sys.stdout.writelines(f"{hit}\n" for hit in all_hits)
    sys.stderr.write(f"{len(all_hits)} hits\n")
    return 1 if all_hits else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
