"""Tell a module from its copies."""

from __future__ import annotations


class Original:
    """An attribute that copies do not have (they have ``None``).

    Copies share what lies outside of the module tree (teachers, an agent) but
    must not move it: EMAHook can keep its copy on another device.
    """

    def __deepcopy__(self, memo: dict) -> None:
        return None
