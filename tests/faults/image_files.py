"""Images of every form and damage: predicted one by one, and among a person's own photos in training."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from . import stock
from .calling import command
from .case import Case, Place
from .judging import strict_json

AREA = "images"


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Any:
    """A colourful image."""
    import numpy as np
    from PIL import Image

    rows, columns = np.mgrid[: size[1], : size[0]]
    pixels = np.stack([rows * 255 // size[1], columns * 255 // size[0], 255 - rows * 255 // size[1]], -1)
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def encoded(kind: str = "PNG", image: Any = None, **options: Any) -> bytes:
    """An image as the content of a file."""
    stream = io.BytesIO()
    (image if image is not None else picture()).save(stream, kind, **options)
    return stream.getvalue()


def _noise(kind: str = "PNG", **options: Any) -> bytes:
    """An image that no format makes small, as the content of a file."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(7).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    return encoded(kind, Image.fromarray(pixels), **options)


def _sixteen_bits() -> bytes:
    import numpy as np
    from PIL import Image

    rows = np.asarray(picture("L")).astype(np.uint16) * 257
    return encoded("PNG", Image.fromarray(rows))


def _float_tiff(top: float) -> bytes:
    import numpy as np
    from PIL import Image

    return encoded("TIFF", Image.fromarray(np.asarray(picture("L")).astype(np.float32) / 255 * top))


def _turned() -> bytes:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded("PNG", picture().rotate(90, expand=True), exif=exif)


def _bad_exif(head: bytes) -> bytes:
    return encoded("JPEG", quality=95)[:2] + b"\xff\xe1" + struct.pack(">H", len(head) + 2) + head + encoded(
        "JPEG", quality=95)[2:]  # fmt: skip


def _huge_header(width: int, height: int) -> bytes:
    """A PNG that says it is huge, with a few bytes of pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def _animated(kind: str) -> bytes:
    return encoded(kind, picture(), save_all=True, append_images=[picture("L").convert("RGB")] * 3, duration=50)


# Whole images, each of which shows `picture()`: the answer is that for its PNG. A tolerance is given where the format
# itself loses something.
WHOLE: dict[str, tuple[str, Callable[[], bytes], float]] = {
    "JPEG": ("a.jpg", lambda: encoded("JPEG", quality=98, subsampling=0), 0.02),
    "a PNG named .jpg": ("a.jpg", encoded, 1e-6),
    "a JPEG named .png": ("a.png", lambda: encoded("JPEG", quality=98, subsampling=0), 0.02),
    "without an ending": ("photo", encoded, 1e-6),
    "capitals": ("A.PNG", encoded, 1e-6),
    "BMP": ("a.bmp", lambda: encoded("BMP"), 1e-6),
    "TIFF": ("a.tif", lambda: encoded("TIFF"), 1e-6),
    "TIFF with LZW": ("a.tiff", lambda: encoded("TIFF", compression="tiff_lzw"), 1e-6),
    "WebP without loss": ("a.webp", lambda: encoded("WEBP", lossless=True), 1e-6),
    "RGBA, opaque": ("a.png", lambda: encoded("PNG", picture("RGBA")), 1e-6),
    "palette": ("a.png", lambda: encoded("PNG", picture("P")), 0.2),
    "CMYK": ("a.jpg", lambda: encoded("JPEG", picture("CMYK"), quality=98), 0.05),
    "turned by EXIF": ("a.png", _turned, 1e-6),
    "progressive JPEG": ("a.jpg", lambda: encoded("JPEG", quality=98, subsampling=0, progressive=True), 0.02),
    "animated PNG": ("a.png", lambda: _animated("PNG"), 1e-6),
    "animated WebP": ("a.webp", lambda: _animated("WEBP"), 0.05),
    "animated GIF": ("a.gif", lambda: _animated("GIF"), 0.2),
    "EXIF that cannot be read": ("a.jpg", lambda: _bad_exif(b"Exif\0\0nonsense"), 0.02),
    "EXIF of zeros": ("a.jpg", lambda: _bad_exif(b"Exif\0\0MM\0*" + bytes(40)), 0.02),
    "a name with a newline": ("a\nb.png", encoded, 1e-6),
    "a name with an escape": ("a\x1b[31m.png", encoded, 1e-6),
    "a name of 200 letters": ("x" * 200 + ".png", encoded, 1e-6),
    "a name that begins with -": ("-a.png", encoded, 1e-6),
    "a name in Cyrillic": ("фото.png", encoded, 1e-6),
    "a name with a combining accent": ("e\u0301.png", encoded, 1e-6),
    "a name that is not UTF-8": ("a\udcff.png", encoded, 1e-6),
    "a name with %s and {}": ("%s {0} [red].png", encoded, 1e-6),
}  # fmt: skip
GREY: dict[str, tuple[str, Callable[[], bytes], float]] = {
    "grey": ("a.png", lambda: encoded("PNG", picture("L")), 1e-6),
    "grey with alpha": ("a.png", lambda: encoded("PNG", picture("LA")), 1e-6),
    "16 bits": ("a.png", _sixteen_bits, 0.01),
    "16 bits in TIFF": ("a.tif", lambda: _sixteen_bits_tiff(), 0.01),
    "floats to 255": ("a.tif", lambda: _float_tiff(255.0), 0.01),
    "floats to 1": ("a.tif", lambda: _float_tiff(1.0), 0.01),
}  # fmt: skip
# No image, or not a whole one: an error that names the file.
DAMAGED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "no bytes": ("a.png", lambda: b""),
    "text": ("a.png", lambda: b"this is no image"),
    "a web page": ("a.jpg", lambda: b"<html><body>404</body></html>"),
    "zeros": ("a.jpg", lambda: bytes(2000)),
    "a cut PNG": ("a.png", lambda: _noise()[:300]),
    "a PNG without its end": ("a.png", lambda: _noise()[:-20]),
    "a cut JPEG": ("a.jpg", lambda: _noise("JPEG", quality=95)[:900]),
    "a cut WebP": ("a.webp", lambda: _noise("WEBP", lossless=True)[:200]),
    "a cut GIF": ("a.gif", lambda: _noise("GIF")[:300]),
    "a cut TIFF": ("a.tif", lambda: _noise("TIFF")[:400]),
    "a cut BMP": ("a.bmp", lambda: _noise("BMP")[:900]),
    "only a PNG's header": ("a.png", lambda: _noise()[:33]),
    "only a JPEG's header": ("a.jpg", lambda: _noise("JPEG")[:20]),
    "a PNG with a wrong checksum": ("a.png", lambda: _noise()[:60] + b"\x55\xaa" + _noise()[62:]),
    "30,000 x 30,000 pixels": ("a.png", lambda: _huge_header(30_000, 30_000)),
    "2,000,000,000 pixels wide": ("a.png", lambda: _huge_header(2_000_000_000, 1)),
    "0 pixels wide": ("a.png", lambda: _huge_header(0, 5)),
    "Git LFS pointer": ("a.jpg", lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"),
}
# They have an answer, whatever it is.
ODD: dict[str, tuple[str, Callable[[], bytes]]] = {
    "1 x 1 pixel": ("a.png", lambda: encoded("PNG", picture(size=(1, 1)))),
    "1 x 3000 pixels": ("a.png", lambda: encoded("PNG", picture(size=(3000, 1)))),
    "black and white": ("a.png", lambda: encoded("PNG", picture("1"))),
    "transparent": ("a.png", lambda: encoded("PNG", _see_through())),
    "palette with transparency": ("a.png", lambda: encoded("PNG", picture("P"), transparency=0)),
    "YCbCr in TIFF": ("a.tif", lambda: encoded("TIFF", picture("YCbCr"))),
    "LAB in TIFF": ("a.tif", lambda: encoded("TIFF", picture("LAB"))),
    "32-bit integers in TIFF": ("a.tif", lambda: encoded("TIFF", picture("I"))),
    "floats with NaN": ("a.tif", lambda: _nan_tiff()),
}


_ALL_PIXELS = {"a PNG without its end"}


def _sixteen_bits_tiff() -> bytes:
    import numpy as np
    from PIL import Image

    return encoded("TIFF", Image.fromarray(np.asarray(picture("L")).astype(np.uint16) * 257))


def _nan_tiff() -> bytes:
    import numpy as np
    from PIL import Image

    values = np.asarray(picture("L")).astype(np.float32)
    values[3:9] = np.nan
    return encoded("TIFF", Image.fromarray(values))


def _see_through() -> Any:
    image = picture("RGBA")
    image.putalpha(0)
    return image


def _scores(said: str) -> list[float]:
    rows = [strict_json(line) for line in said.splitlines() if line.startswith("{")]
    return [entry["score"] for entry in sorted(rows[0]["predictions"], key=lambda e: e["label"])]


def _write(place: Place, name: str, make: Callable[[], bytes]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (place.folder / "in").mkdir()
        (place.folder / "in" / name).write_bytes(make())
        (place.folder / "whole.png").write_bytes(encoded())
        (place.folder / "noise.png").write_bytes(_noise())
        (place.folder / "grey.png").write_bytes(encoded("PNG", picture("L").convert("RGB")))
        stock.run(place.shared)
        place.keep(place.folder / "in")


def _predict(name: str, plain: str, place: Place) -> tuple[list[float], list[float]]:
    found = _scores(command("predict", stock.run(place.shared), place.folder / "in" / name, "--json"))
    return found, _scores(command("predict", stock.run(place.shared), place.folder / plain, "--json"))


def _same(tolerance: float, answer: tuple[list[float], list[float]]) -> str | None:
    found, plain = answer
    difference = max(abs(a - b) for a, b in zip(found, plain, strict=True))
    return None if difference <= tolerance else f"probabilities differ by {difference:.3f} from those of the same PNG"


def _explain(name: str, place: Place) -> str:
    return command("explain", stock.run(place.shared), place.folder / "in" / name, "--output", place.folder / "why",
                   "--method", "rollout")  # fmt: skip


def _train(name: str, place: Place) -> Path:
    """A run on photos with this one among them."""
    import shutil

    data = Path(shutil.copytree(stock.photos(place.shared), place.folder / "photos"))
    for label in stock.CLASSES:
        (data / label / f"z{name}").write_bytes((place.folder / "in" / name).read_bytes())
    place.keep(data)
    with stock.no_drawing():
        stock.train(data, place.folder / "run", {"training.epochs": 1})
    return place.folder / "run"


def _told(answer: Any) -> str:
    return "answered for what is no whole image"


def cases(seed: int) -> Iterator[Case]:
    """Every kind of file, predicted alone; damaged ones explained and trained on too; then whole folders."""
    for kinds, plain in ((WHOLE, "whole.png"), (GREY, "grey.png")):
        for what, (name, make, tolerance) in kinds.items():
            yield Case(
                AREA, f"predict {what}", f"vithub predict RUN {name!r}  ({what})", partial(_predict, name, plain),
                partial(_write, name=name, make=make), partial(_same, tolerance), (_shown(name),),
                short=what in ("turned by EXIF", "floats to 1", "a name with a newline"),
            )  # fmt: skip
    for what, (name, make) in DAMAGED.items():
        prepare = partial(_write, name=name, make=make)
        # a format's end may be missing where every pixel is there: then the answer is that for the whole image
        told = partial(_same, 1e-6) if what in _ALL_PIXELS else _told
        others = (lambda answer: None) if what in _ALL_PIXELS else _told
        call = f"vithub predict RUN {name}  ({what})"
        yield Case(AREA, f"predict {what}", call, partial(_predict, name, "noise.png"), prepare, told, (name,), True,
                   short=what == "a cut PNG")  # fmt: skip
        call = f"vithub explain RUN {name}  ({what})"
        yield Case(AREA, f"explain {what}", call, partial(_explain, name), prepare, others, (name,), True)
        call = f"vithub finetune --data PHOTOS  (with {name}, {what})"
        yield Case(AREA, f"finetune {what}", call, partial(_train, name), prepare, others, (f"z{name}",), True)
    for what, (name, make) in ODD.items():
        prepare = partial(_write, name=name, make=make)
        call = f"vithub predict RUN {name}  ({what})"
        yield Case(AREA, f"predict {what}", call, partial(_predict, name, "whole.png"), prepare, names=(name,))


def _shown(name: str) -> str:
    """The part of a file's name that any escaping leaves."""
    return max((part for part in name.replace("\x1b", "\n").replace("\udcff", "\n").split("\n")), key=len)


__all__ = ["cases", "encoded", "picture"]
