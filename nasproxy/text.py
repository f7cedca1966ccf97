"""Numbers and names as a reader meets them in figures and on the report's page."""

from __future__ import annotations

import math

Number = int | float
"""Named, because the run-time checks of the tests take no int for a float."""


def duration(seconds: Number) -> str:
    """A time span in the two largest units that matter.

    Example:
        >>> duration(4.21), duration(192), duration(7500)
        ('4.2 s', '3 min 12 s', '2 h 5 min')
    """
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s" if round(seconds, 1) < 10 else f"{min(seconds, 59):.0f} s"
    if round(seconds) < 3600:
        return f"{round(seconds) // 60} min {round(seconds) % 60} s"
    return f"{round(seconds / 60) // 60:,} h {round(seconds / 60) % 60} min"


def percent(fraction: Number | None, digits: int = 1) -> str:
    r"""A fraction in percent; a dash where there is none.

    Example:
        >>> percent(0.9731)
        '97.3\xa0%'
    """
    if fraction is None or math.isnan(fraction):
        return "\N{EN DASH}"
    return f"{100 * fraction:.{digits}f}\N{NO-BREAK SPACE}%"


def wilson(fraction: Number, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a fraction of ``n`` images (E. B. Wilson, JASA 22, 1927).

    Example:
        >>> [round(bound, 3) for bound in wilson(0.9, 10)]
        [0.596, 0.982]
    """
    from scipy.stats import binomtest  # here, as commands that need none of it should start at once

    found = binomtest(round(fraction * n), n).proportion_ci(0.95, "wilson")
    return float(found.low), float(found.high)


def signed(value: Number) -> str:
    """A correlation with two decimals and a typographic minus.

    Example:
        >>> signed(0.126), signed(-0.001)
        ('0.13', '0.00')
    """
    return f"{round(value, 2) + 0:.2f}".replace("-", "\N{MINUS SIGN}")


def interval(low: Number, high: Number, level: Number) -> str:
    r"""A correlation's interval.

    Example:
        >>> interval(0.1, 0.91, 0.95)
        '95\xa0% interval 0.10 to 0.91'
    """
    return f"{100 * level:g}\N{NO-BREAK SPACE}% interval {signed(low)} to {signed(high)}"


def count(number: Number) -> str:
    """A large number with three digits and its unit.

    Example:
        >>> count(812), count(45_120), count(3_210_000)
        ('812', '45.1 k', '3.21 M')
    """
    for factor, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        # 999,600 would round to "1000 k".
        if number >= factor * 0.9995:
            return f"{number / factor:.{2 - min(2, int(math.log10(number / factor * 1.0005)))}f}{unit}"
    return f"{number:.0f}"


def counted(number: int, noun: str) -> str:
    """A number of things, by a noun whose plural ends in s.

    Example:
        >>> counted(1, "epoch"), counted(1_200, "epoch")
        ('1 epoch', '1,200 epochs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def milliseconds(value: Number) -> str:
    """A short time with three digits.

    Example:
        >>> milliseconds(0.04217), milliseconds(3.2), milliseconds(128.4)
        ('0.0422 ms', '3.20 ms', '128 ms')
    """
    digits = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:.{max(0, digits)}f} ms"


def one_line(text: object) -> str:
    r"""A text in one printable line.

    Example:
        >>> one_line("a name\n that  goes on")
        'a name that goes on'
    """
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def shorten(text: object, limit: int = 24) -> str:
    r"""One printable line of at most ``limit`` characters.

    Example:
        >>> shorten("a name\nthat goes on", 10)
        'a name th…'
    """
    line = one_line(text)
    return line if len(line) <= limit else line[: limit - 1] + "…"
