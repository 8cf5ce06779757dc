"""Every setting of the coordinator: one typed struct, and where each value came from.

Sources, strongest first: flags, environment (``COMPTOIR_<NAME>``), file (``comptoir.toml`` in the data folder,
or the one named by ``--config``), default. Unknown names and values out of bounds are refused with the field, the limit
and the source. ``docs/configuration.md`` is this module's `reference`, checked by a test.
"""

from comptoir.settings.fields import FIELDS, Settings, reference
from comptoir.settings.load import ENVIRONMENT_NOT_OURS, Loaded, SettingsError, load, masked

__all__ = [
    "ENVIRONMENT_NOT_OURS",
    "FIELDS",
    "Loaded",
    "Settings",
    "SettingsError",
    "load",
    "masked",
    "reference",
]
