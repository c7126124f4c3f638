"""A bar chart of scripts/compare_frameworks.py, in SVG."""

LABELS = {"jax": "vireid_jax", "eager": "PyTorch", "compiled": "PyTorch compiled"}
HOST = {"evaluate": "query by query", "data": "PIL per image"}
COLOURS = {"jax": "#1b7837", "eager": "#9970ab", "compiled": "#5e3c99"}
WIDTH, LINE, LEFT, BAR = 640, 22, 150, 380


def _gpu(found):
    first = next(iter(found["presets"].values()))["modes"]
    return next(iter(first.values()))["sides"]["jax"]["versions"]["device"]


def label(mode, side):
    """What a side is called in a mode."""
    return HOST.get(mode, LABELS[side]) if side == "eager" else LABELS[side]


def bars(found):
    """Images or queries a second, a group of bars for each mode, each to its own scale."""
    content, y = [], 24
    groups = [
        (preset, mode, figures)
        for preset, own in found["presets"].items()
        for mode, figures in own["modes"].items()
    ]
    for preset, mode, figures in groups:
        rates = {name: own["per_s"] for name, own in figures["sides"].items()}
        title = f"{mode}, {preset}, {figures['unit']}/s"
        content.append(f'<text x="8" y="{y}" font-weight="bold">{title}</text>')
        for name, rate in rates.items():
            y += LINE
            length = BAR * rate / max(rates.values())
            content += [
                f'<text x="{LEFT - 8}" y="{y}" text-anchor="end">{label(mode, name)}</text>',
                f'<rect x="{LEFT}" y="{y - 13}" width="{length:.1f}" height="16" '
                f'fill="{COLOURS[name]}"/>',
                f'<text x="{LEFT + length + 6:.1f}" y="{y}">{rate:.4g}</text>',
            ]
        y += 2 * LINE
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" '
        'font-family="sans-serif" font-size="13">'
    )
    background = f'<rect width="{WIDTH}" height="{y}" fill="white"/>'
    where = found["machine"]["cpu"] if found["device"] == "cpu" else _gpu(found)
    title = f"{found['device']}, {found['dtype']}, {where}"
    caption = f'<text x="8" y="{y - LINE / 2}" fill="#555">{title}</text>'
    return "\n".join([head, background, *content, caption, "</svg>"]) + "\n"
