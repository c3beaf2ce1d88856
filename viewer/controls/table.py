"""Small tables of numbers and bars of colours, as HTML that viser's page shows."""

from __future__ import annotations

from collections.abc import Sequence

STYLE = (
    "<style>.ks{width:100%;border-collapse:collapse;font-size:12px;line-height:1.5;font-variant-numeric:tabular-nums}"
    ".ks td{padding:1px 4px;vertical-align:top}.ks td:first-child{white-space:nowrap}"
    ".ks td:nth-child(2){text-align:right;white-space:nowrap;font-weight:600}"
    ".ks td.w{font-size:10.5px;opacity:.6;line-height:1.25;padding-bottom:3px;white-space:normal}"
    ".ks .big td{font-size:15px;font-weight:600}"
    ".ks .part td:first-child{padding-left:16px}.ks .part td:nth-child(2){font-weight:400}"
    ".ks .words td:nth-child(2){white-space:normal;font-weight:400}"
    ".ksbox{padding:2px 10px 6px}.ksbar{height:10px;border-radius:2px}"
    ".ksends{display:flex;justify-content:space-between;font-size:11px;line-height:1.6}</style>"
)


def table(rows: Sequence[str]) -> str:
    """Rows that `row` and `note` made."""
    return f'{STYLE}<div class="ksbox"><table class="ks">{"".join(rows)}</table></div>'


def row(name: str, value: str, css: str = "") -> str:
    """A name and its value, both safe as HTML; `css` may be big, words, or part for what is within the row above."""
    return f'<tr class="{css}"><td>{name}</td><td>{value}</td></tr>'


def note(words: str, css: str = "") -> str:
    """What the row above means."""
    return f'<tr class="{css}"><td class="w" colspan="2">{words}</td></tr>'


def milliseconds(value: float) -> str:
    """Three digits that count."""
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms"


def rate(value: float) -> str:
    """Frames a second, to a tenth where there are few."""
    return f"{value:.1f}" if 0 < value < 10 else f"{value:.0f}"


def color_bar(colors: Sequence[Sequence[float]], low: str, unit: str, high: str) -> str:
    """A bar from the first of the RGB colours in [0, 1] to the last, with what its ends stand for below."""
    stops = ",".join(f"rgb({','.join(f'{255 * channel:.0f}' for channel in color)})" for color in colors)
    return (
        f'{STYLE}<div class="ksbox"><div class="ksbar" style="background:linear-gradient(90deg,{stops})"></div>'
        f'<div class="ksends"><span>{low}</span><span>{unit}</span><span>{high}</span></div></div>'
    )
