"""Everything that can go wrong for a reason the user can mend.

A message says which thing, what was got, what was expected and what to do; anything about a file carries its path.
``exit_code`` is what the command line ends with when the error reaches it; docs/reference/exit-codes.md lists them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike


class BrainLMError(Exception):
    """Base of every error with a message meant for the user; any other exception is a defect of ours."""

    exit_code = 1


class ConfigError(BrainLMError):
    """A setting that is unknown, of the wrong type, or at odds with another one."""

    exit_code = 2


class InputError(BrainLMError):
    """Data that cannot be used as it is; always with the path where it stands.

    Parameters
    ----------
    what : str
        The fault, with the offending values.
    path : path-like
        File or folder where it was found.
    expected, remedy : str
        What would have been right, and what to do.

    Examples
    --------
    >>> print(InputError("onset 700 s is past the end", "events.tsv", expected="at most 300 s", remedy="check the TR"))
    onset 700 s is past the end: events.tsv (expected: at most 300 s; remedy: check the TR)
    """

    exit_code = 65

    def __init__(self, what: str, path: str | PathLike[str], *, expected: str = "", remedy: str = "") -> None:
        self.what, self.path, self.expected, self.remedy = what, str(path), expected, remedy
        hints = "; ".join(f"{label}: {text}" for label, text in (("expected", expected), ("remedy", remedy)) if text)
        super().__init__(f"{what}: {self.path}" + (f" ({hints})" if hints else ""))

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments would be lost when a worker process sends the error back.
        return _rebuild, (type(self), self.what, self.path, self.expected, self.remedy)


class MissingInputError(InputError):
    """A file or label that was asked for and is not there."""

    exit_code = 66


class MissingResourceError(InputError):
    """A template or language model that is not on this machine and cannot be fetched."""

    exit_code = 69


class OutputError(InputError):
    """A folder that cannot be written: full, read-only, or in use by another run."""

    exit_code = 73


class LeakageError(BrainLMError):
    """Something of the test set (an example, its group or a recording row) would be seen in training."""

    exit_code = 65


class Faults(BrainLMError):
    """Several faults found at once.

    Parameters
    ----------
    faults : sequence of BrainLMError
        At least one; each keeps its own line.

    Examples
    --------
    >>> both = Faults([ConfigError("no setting 'a.b'"), MissingInputError("no such file", "x.tsv")])
    >>> both.exit_code, len(both.lines)
    (65, 2)
    """

    def __init__(self, faults: Sequence[BrainLMError]) -> None:
        # What several runs have in common, such as a table of texts, is told once.
        self.faults = tuple({str(fault): fault for fault in faults}.values())
        codes = {fault.exit_code for fault in self.faults}
        # Faults of different kinds have only in common that the input cannot be used as it is.
        self.exit_code = codes.pop() if len(codes) == 1 else 65
        super().__init__("; ".join(self.lines))

    @property
    def lines(self) -> tuple[str, ...]:
        """One message a fault."""
        return tuple(map(str, self.faults))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.faults,)


def lines_of(error: BrainLMError) -> tuple[str, ...]:
    """Messages of an error: one, or those of each of several faults."""
    return error.lines if isinstance(error, Faults) else (str(error),)


@contextmanager
def collecting(faults: list[BrainLMError]) -> Iterator[None]:
    """Add what goes wrong inside to a list, once, and go on after it.

    >>> faults = []
    >>> for name in "ab":
    ...     with collecting(faults):
    ...         raise ConfigError(f"no setting {name!r}")
    >>> [str(fault) for fault in faults]
    ["no setting 'a'", "no setting 'b'"]
    """
    try:
        yield
    except BrainLMError as error:
        known = set(map(str, faults))
        faults += [fault for fault in (error.faults if isinstance(error, Faults) else (error,)) if str(fault) not in known]


def one_or_all(faults: Sequence[BrainLMError]) -> BrainLMError:
    """The only fault, or all of them; what several lack at one place, with one remedy, is one fault."""
    alike: dict[tuple[object, ...], list[BrainLMError]] = {}
    for fault in faults:
        about = (fault.path, fault.expected, fault.remedy) if isinstance(fault, InputError) else (str(fault),)
        alike.setdefault((type(fault), *about), []).append(fault)
    distinct = [_joined(group) for group in alike.values()]
    return distinct[0] if len(distinct) == 1 else Faults(distinct)


def _joined(faults: list[BrainLMError]) -> BrainLMError:
    first, whats = faults[0], dict.fromkeys(getattr(fault, "what", "") for fault in faults)
    if not isinstance(first, InputError) or len(whats) == 1:
        return first
    return type(first)("; ".join(whats), first.path, expected=first.expected, remedy=first.remedy)


def _rebuild(kind: type[InputError], what: str, path: str, expected: str, remedy: str) -> InputError:
    return kind(what, path, expected=expected, remedy=remedy)
