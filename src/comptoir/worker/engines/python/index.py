"""Where packages come from: the host owner's settings for uv or pip, and nothing of a buyer's."""

import configparser
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

_CHOICES = ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
"""An owner who sets any of these means uv, and what is said to pip does not count."""
_FROM_PIP = {
    "index-url": "UV_INDEX_URL",
    "extra-index-url": "UV_EXTRA_INDEX_URL",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
}
_PASSED = ("SSL_CERT_FILE", "SSL_CERT_DIR", "NETRC", "HOME", "LANG", "XDG_CONFIG_HOME")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_OF_LISTS = {"UV_EXTRA_INDEX_URL": " ", "UV_FIND_LINKS": ","}
"""How uv separates what pip separates by white space."""


def index_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which uv finds the owner's indexes, proxies and certificates.

    uv's own settings count (``UV_*`` and its configuration files); without any in the environment, those for pip
    (``PIP_*``, then its files).
    """
    found = {name: value for name, value in environment.items() if name.startswith("UV_") or name in _PASSED}
    found |= {name: value for name, value in environment.items() if name.lower() in _PROXIES}
    if not any(name in environment for name in _CHOICES):
        for name, value in _pip(environment).items():
            found.setdefault(name, value)
    return found


def _pip(environment: Mapping[str, str]) -> dict[str, str]:
    said = _pip_words(environment)
    named = {ours: said[theirs].strip() for theirs, ours in _FROM_PIP.items() if said.get(theirs, "").strip()}
    return {name: _OF_LISTS[name].join(text.split()) if name in _OF_LISTS else text for name, text in named.items()}


def no_index(environment: Mapping[str, str]) -> bool:
    """Tell whether packages come from the owner's folders alone, which uv has no variable for."""
    if any(name in environment for name in _CHOICES):
        return False
    return _pip_words(environment).get("no-index", "").strip().lower() in ("1", "true", "yes", "on")


def _pip_words(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what pip is told, by its own words."""
    said: dict[str, str] = {}
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read(_pip_files(environment))
    except (configparser.Error, UnicodeDecodeError):
        parser.clear()
    for section in ("global", "install"):
        if parser.has_section(section):
            said |= dict(parser.items(section))
    return said | {
        name.removeprefix("PIP_").lower().replace("_", "-"): value
        for name, value in environment.items()
        if name.startswith("PIP_")
    }


def _pip_files(environment: Mapping[str, str]) -> list[str]:
    """Return pip's configuration files, the strongest last."""
    home = Path(environment.get("HOME", "/nonexistent"))
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    files = ["/etc/pip.conf", home / ".pip" / "pip.conf", config / "pip" / "pip.conf", f"{sys.prefix}/pip.conf"]
    return [str(each) for each in (*files, environment.get("PIP_CONFIG_FILE", "")) if each]


def secrets_in(settings: Mapping[str, str]) -> list[str]:
    """Return the names of settings that hold a password, which code of strangers must not see."""
    found = []
    for name, value in settings.items():
        words = value.replace(",", " ").split()
        if any("@" in urlsplit(word).netloc for word in words) or name.endswith(("_PASSWORD", "_TOKEN", "_USERNAME")):
            found.append(name)
    return found


def folders_in(settings: Mapping[str, str]) -> list[Path]:
    """Return the folders of this machine that packages come from, so that they can be shown to a build."""
    given = [settings.get(name, "") for name in _CHOICES]
    # An index may be given with a name: pytorch=file:///…
    words = [word.rpartition("=")[2] for word in ",".join(given).replace(" ", ",").split(",")]
    words = list(dict.fromkeys(word.removeprefix("file://") for word in words))
    return [Path(word) for word in words if word.startswith("/") and os.path.isdir(word)]
