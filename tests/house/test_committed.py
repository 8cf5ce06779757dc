"""Nothing goes into the repository that belongs to one person or one machine: secrets, paths, registry hosts.

The patterns are put together from pieces, so that this file does not find itself.
"""

import re

import pytest

from tests.house import tree

PATTERNS = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE " + "KEY-----",
    "one of our own keys": r"\b(ck_|ak_live_|hk_live_)[A-Za-z0-9_-]{43}\b",
    "an OpenAI or Anthropic key": r"\bsk-(proj-|ant-)?[A-Za-z0-9_-]{32,}",
    "a GitHub token": r"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{40,})",
    "an AWS key": r"\bA(KI|SI)A[0-9A-Z]{16}\b",
    "a registry token": r"\b(npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{40,}|hf_[A-Za-z]{34})\b",
    "a password in an address": r"\b[a-z][a-z0-9+]*://[^\s:/@'\"{}<>$]+:[^\s:/@'\"{}<>$]{6,}@[a-z0-9.-]+\.[a-z]{2,}",
    "a path of one machine": r"(?<![\w.~-])/(" + r"root|work/(?:main|wt|venv|shared)|home/\w+|Users/\w+)/[\w.-]+",
    "a registry's host": r"\b(pypi" + r"\.org|python" + r"hosted\.org|registry\.(npm" + r"js\.org|yarn" + r"pkg\.com))",
}

MADE_UP = re.compile(r"^/home/(you|me|user)/|@([\w-]+\.)*(example(\.com|\.net|\.org)?|test|invalid)$")
"""Homes and hosts that nobody has: documentation and tests may show them."""


def offences(path: str, text: str) -> list[str]:
    """Return one line for each thing in *text* that must not be committed."""
    wrong = []
    for what, pattern in PATTERNS.items():
        for match in re.finditer(pattern, text):
            if not MADE_UP.search(match.group()):
                line = text.count("\n", 0, match.start()) + 1
                # A secret is not repeated into a build log.
                wrong.append(f"{path}:{line}: {what}: {match.group()[:12]}…")
    return wrong


PLANTED = [
    ("a private key", "-----BEGIN OPENSSH PRIVATE " + "KEY-----"),
    ("one of our own keys", "ck_" + "a1B2_" * 8 + "xyz"),
    ("one of our own keys", "COMPTOIR_KEY=hk_live_" + "a1B2-" * 8 + "xyz"),
    ("an OpenAI or Anthropic key", "sk-" + "proj-" + "a1B2c3D4" * 5),
    ("a GitHub token", "gh" + "p_" + "a1B2c3" * 6),
    ("an AWS key", "AK" + "IA" + "ABCD2345" * 2),
    ("a registry token", "np" + "m_" + "a1B2c3" * 6),
    ("a password in an address", "postgres" + "://me:hunter22@db.shop.dev/x"),
    ("a path of one machine", "see /" + "root/project/file.py"),
    ("a path of one machine", 'open("/' + 'home/alice/data")'),
    ("a path of one machine", "/" + "work/main/src"),
    ("a registry's host", "https://files.python" + "hosted.org/packages/x"),
    ("a registry's host", '"resolved": "https://registry.npm' + 'js.org/x"'),
]

FINE = [
    "Authorization: Bearer ck_...",
    "curl http://127.0.0.1:8080/jobs",
    "PATH=/usr/bin:/bin",
    "POST /users/rotate-key and GET /work/other",
    "postgres://localhost/comptoir",
    "/home/you/comptoir-data",
    "http://user:secret@a.example/",
]


class TestTree:
    def test_nothing_of_one_person_or_machine_is_committed(self) -> None:
        wrong = []
        for path in tree.files():
            text = tree.text_of(path)
            wrong += offences(path, text) if text else []

        assert wrong == []

    def test_no_file_of_secrets_is_committed(self) -> None:
        secret = re.compile(r"(^|/)(\.env(\..*)?|.*\.(env|pem|key|p12|sqlite3?|db))$")

        assert [path for path in tree.files() if secret.search(path)] == []

    @pytest.mark.parametrize("lock", ["base", "dev", "infernet-client", "run", "server"])
    def test_every_locked_version_has_a_hash(self, lock: str) -> None:
        text = (tree.ROOT / "requirements" / f"{lock}.txt").read_text()
        pinned = [block for block in re.split(r"\n(?=\S)", text) if not block.startswith("#")]

        assert pinned
        assert [block.split()[0] for block in pinned if "==" not in block or "--hash=sha256:" not in block] == []


class TestPatterns:
    @pytest.mark.parametrize(("what", "text"), PLANTED)
    def test_a_planted_one_is_found(self, what: str, text: str) -> None:
        assert [line.split(": ")[1] for line in offences("a", text)] == [what]

    @pytest.mark.parametrize("text", FINE)
    def test_ordinary_text_passes(self, text: str) -> None:
        assert offences("a", text) == []

    def test_every_pattern_is_proved(self) -> None:
        assert {what for what, _ in PLANTED} == set(PATTERNS)
