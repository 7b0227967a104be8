"""A tally as a picture: SVG, so that nothing but a browser is needed."""

from __future__ import annotations

from tally import LATE_MINUTES, Tally

WIDTH, HEIGHT = 960, 440
TOP, BOTTOM = 96, 380
HOUR_FLIGHTS_MIN = 40
"""Hours with fewer flights say nothing."""
AIRPORTS = 12
STYLE = """
  text { font: 13px system-ui, "DejaVu Sans", sans-serif; fill: #b9c0cb }
  .title { font-size: 17px; font-weight: 600; fill: #f4f1e8 }
  .note { font-size: 12px; fill: #8d96a5 }
  .value { font-size: 12px; fill: #f4f1e8 }
  .middle { text-anchor: middle } .end { text-anchor: end }
  .hour { fill: #4f9de8 } .airport { fill: #f2a93b }
  .grid { stroke: #2c333d }
"""


def _hours(tally: Tally, left: float, width: float) -> list[str]:
    """Columns: the mean delay of each hour."""
    hours = sorted(
        (hour, delays.mean_minutes)
        for hour, delays in tally.hours.items()
        if delays.flights >= HOUR_FLIGHTS_MIN
    )
    top = 5 * (int(max([0.0, *(mean for _, mean in hours)])) // 5 + 1)
    low = min([0.0, *(mean for _, mean in hours)])
    scale = (BOTTOM - TOP) / (top - low)
    zero = BOTTOM + low * scale
    step = width / 24
    shapes = [
        f'<text class="title" x="{left}" y="44">Mean delay by hour of departure</text>',
        f'<text class="note" x="{left}" y="66">minutes; hours with at least '
        f"{HOUR_FLIGHTS_MIN} flights</text>",
    ]
    for value in range(0, top + 1, 5):
        y = zero - value * scale
        shapes.append(f'<path class="grid" d="M{left} {y:.1f}h{width}"/>')
        shapes.append(f'<text class="end" x="{left - 8}" y="{y + 4:.1f}">{value}</text>')
    for hour, mean in hours:
        x = left + hour * step
        y, height = min(zero, zero - mean * scale), abs(mean) * scale
        shapes.append(
            f'<rect class="hour" x="{x + 2:.1f}" y="{y:.1f}" width="{step - 4:.1f}" '
            f'height="{height:.1f}" rx="2"><title>{hour:02}:00, {mean:.1f} min</title></rect>'
        )
    for hour in range(0, 24, 3):
        label = f'x="{left + (hour + 0.5) * step:.1f}" y="{BOTTOM + 22}">{hour:02}:00'
        shapes.append(f'<text class="middle" {label}</text>')
    return shapes


def _airports(tally: Tally, left: float, width: float) -> list[str]:
    """Bars: the share of late flights of the largest airports, the worst first."""
    by_flights = sorted(tally.airports.items(), key=lambda item: (-item[1].flights, item[0]))
    largest = by_flights[:AIRPORTS]
    largest.sort(key=lambda item: -item[1].late_share)
    scale = (width - 48) / max([0.01, *(delays.late_share for _, delays in largest)])
    step = (BOTTOM - TOP) / AIRPORTS
    shapes = [
        f'<text class="title" x="{left - 42}" y="44">Late flights of the largest airports</text>',
        f'<text class="note" x="{left - 42}" y="66">share that left {LATE_MINUTES} minutes late '
        "or more</text>",
    ]
    for index, (airport, delays) in enumerate(largest):
        y = TOP + index * step
        length = delays.late_share * scale
        middle = y + step / 2 + 4
        shapes += [
            f'<text class="end" x="{left - 8}" y="{middle:.1f}">{airport}</text>',
            f'<rect class="airport" x="{left}" y="{y + 3:.1f}" width="{length:.1f}" '
            f'height="{step - 6:.1f}" rx="2"/>',
            f'<text class="value" x="{left + length + 6:.1f}" y="{middle:.1f}">'
            f"{delays.late_share:.0%}</text>",
        ]
    return shapes


def draw(tally: Tally) -> str:
    """The whole picture."""
    count = sum(delays.flights for delays in tally.hours.values())
    shapes = _hours(tally, 64, 450) + _airports(tally, 622, 290)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">\n'
        f"<title>Delays of {count:,} flights</title>\n<style>{STYLE}</style>\n"
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#14181d"/>\n'
        + "\n".join(shapes)
        + f'\n<text class="note" x="64" y="424">{count:,} flights, counted by FAST MQ workers '
        "that share them by airport</text>\n</svg>\n"
    )
