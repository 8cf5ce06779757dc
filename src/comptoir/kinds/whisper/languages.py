"""Languages that can be asked for: Whisper's own codes, and what people write for them."""

from types import MappingProxyType

ENGLISH = "en"
AUTO = "auto"
"""What a buyer writes who leaves it to the model."""

_NAMES = (
    "af afrikaans|am amharic|ar arabic|as assamese|az azerbaijani|ba bashkir|be belarusian|bg bulgarian|bn bengali|"
    "bo tibetan|br breton|bs bosnian|ca catalan|cs czech|cy welsh|da danish|de german|el greek|en english|es spanish|"
    "et estonian|eu basque|fa persian|fi finnish|fo faroese|fr french|gl galician|gu gujarati|ha hausa|haw hawaiian|"
    "he hebrew|hi hindi|hr croatian|ht haitian creole|hu hungarian|hy armenian|id indonesian|is icelandic|it italian|"
    "ja japanese|jw javanese|ka georgian|kk kazakh|km khmer|kn kannada|ko korean|la latin|lb luxembourgish|ln lingala|"
    "lo lao|lt lithuanian|lv latvian|mg malagasy|mi maori|mk macedonian|ml malayalam|mn mongolian|mr marathi|ms malay|"
    "mt maltese|my myanmar|ne nepali|nl dutch|nn nynorsk|no norwegian|oc occitan|pa punjabi|pl polish|ps pashto|"
    "pt portuguese|ro romanian|ru russian|sa sanskrit|sd sindhi|si sinhala|sk slovak|sl slovenian|sn shona|so somali|"
    "sq albanian|sr serbian|su sundanese|sv swedish|sw swahili|ta tamil|te telugu|tg tajik|th thai|tk turkmen|"
    "tl tagalog|tr turkish|tt tatar|uk ukrainian|ur urdu|uz uzbek|vi vietnamese|yi yiddish|yo yoruba|zh chinese"
)
LANGUAGES = MappingProxyType({row[: row.index(" ")]: row[row.index(" ") + 1 :] for row in _NAMES.split("|")})
"""English name by code: those that every multilingual Whisper model has."""

_ALIASES = {
    **{name: code for code, name in LANGUAGES.items()},
    **{"jp": "ja", "cn": "zh", "kr": "ko", "gr": "el", "cz": "cs", "ua": "uk", "dk": "da", "se": "sv", "iw": "he"},
    **{"jv": "jw", "nb": "no", "fil": "tl", "in": "id", "burmese": "my", "valencian": "ca", "flemish": "nl"},
    **{"haitian": "ht", "letzeburgesch": "lb", "pushto": "ps", "panjabi": "pa", "moldavian": "ro", "moldovan": "ro"},
    **{"sinhalese": "si", "castilian": "es", "mandarin": "zh", "farsi": "fa"},
}
"""What else is understood: names in English, codes of countries that are taken for those of their languages, and codes
of ISO 639 that Whisper spells otherwise."""

LANGUAGE_CHARS_MAX = 32
"""Longest word for a language that is looked at."""


def language_code(text: str) -> str:
    """Return Whisper's code of what somebody wrote: ``EN``, ``English``, ``en-US``, ``jp``; empty: it is none."""
    word = text.strip().lower().replace("_", "-")
    if word in LANGUAGES:
        return word
    if word in _ALIASES:
        return _ALIASES[word]
    first, dash, region = word.partition("-")
    # A region or a script beside a code: pt-BR, zh-Hans.
    return (first if first in LANGUAGES else "") if dash and 2 <= len(region) <= 8 else ""
