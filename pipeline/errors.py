"""The errors a user meets, each with the exit code it ends a command with.

UpscaleError
|-- ConfigError            2   a setting is wrong
|-- MediaError             2   an input is wrong
|-- OutputError            4   the output is incomplete; the same command resumes
`-- InterruptedRunError  130   stopped by the user; the same command resumes
"""


class UpscaleError(Exception):
    """One line: what, where, which value, what to do."""

    exit_code = 4


class ConfigError(UpscaleError):
    exit_code = 2


class MediaError(UpscaleError):
    exit_code = 2


class OutputError(UpscaleError):
    exit_code = 4


class InterruptedRunError(UpscaleError):
    exit_code = 130
