"""Distinguish a module from its copies."""

from __future__ import annotations


class Original:
    """Value of an attribute that is ``None`` in copies.

    Copies share objects outside of the module tree (teachers, an agent) but
    must not move them: EMAHook can keep its copy on another device.
    """

    def __deepcopy__(self, memo: dict) -> None:
        return None
