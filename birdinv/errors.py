"""The errors a user can cause: one sentence with what was found, what was expected, what to do."""


class BirdinvError(Exception):
    """Something the user can mend: the command line prints the sentence, exits with `exit_code`."""

    exit_code = 1


class SettingError(BirdinvError):
    """A setting out of its range: wrong usage."""

    exit_code = 2


class NothingReadable(BirdinvError):
    """Not one of the inputs could be read."""

    exit_code = 4


class Interrupted(BirdinvError):
    """The user pressed Ctrl-C and what was done is saved; the sentence says how to go on."""

    exit_code = 130
