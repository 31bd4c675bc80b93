"""Put the pictures of `foveal demo` side by side: docs/demo.png."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from foveal.storage.atomic import replacing

ROOT = Path(__file__).resolve().parent.parent
WIDTH, GAP = 640, 8


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "out" / "demo"
    found = [next(folder.glob(f"{name}.*")) for name in ("street", "street_overlay", "street_plan")]
    parts = [Image.open(path).convert("RGB") for path in found]
    height = max(round(part.height * WIDTH / part.width) for part in parts)
    sheet = Image.new("RGB", (len(parts) * (WIDTH + GAP) - GAP, height), "white")
    for place, part in enumerate(parts):
        size = (WIDTH, round(part.height * WIDTH / part.width))
        sheet.paste(part.resize(size, Image.Resampling.LANCZOS), (place * (WIDTH + GAP), 0))
    (ROOT / "docs").mkdir(exist_ok=True)
    with replacing(ROOT / "docs" / "demo.png") as part:
        sheet.save(part, optimize=True)


if __name__ == "__main__":
    main()
