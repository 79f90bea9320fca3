"""What the command line says when it cannot go on: one line, and what to do next.

CliError
├── UsageError        a setting or argument that cannot be meant (exit code 2)
├── ServiceError      the gateway refused or failed a request; carries .code and .status
└── ServiceAway       nothing answers at the address of the gateway
"""

from __future__ import annotations


class CliError(Exception):
    """Ends the command. `hint` says what to do next and is printed after the message."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return sentences(self.message, self.hint) if self.hint else self.message.rstrip(".")


def sentences(*parts: str) -> str:
    """The parts as sentences of one line, each with one mark at its end where another follows."""
    *firsts, last = parts
    return " ".join(
        [*(part if part.endswith(("?", "!")) else part.rstrip(".") + "." for part in firsts), last]
    )


class UsageError(CliError):
    """A setting or an argument that cannot be meant."""

    exit_code = 2


class ServiceError(CliError):
    """The gateway answered with a problem (RFC 9457)."""

    def __init__(self, message: str, *, code: str, status: int, hint: str = "") -> None:
        super().__init__(message, hint)
        self.code = code
        self.status = status


class ServiceAway(CliError):
    """Nothing answers at the address of the gateway."""
