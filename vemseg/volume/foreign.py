"""Errors of other libraries on damaged input, turned into one line: see ``vemseg.foreign``."""

from vemseg.foreign import reading as as_input_error

__all__ = ["as_input_error"]
