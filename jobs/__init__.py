"""Entry points: the ``swinir`` command and its parts."""
