#!/usr/bin/python3
"""Writes extra-* and extra.safetensors: encodings that Pillow can read but not write, with the pixels that
Pillow 9.4 (Debian 12) gives after exif_transpose() and convert("RGB"). Run it in this folder."""
import io, json, random, struct, zlib
from PIL import Image, ImageOps

random.seed(20)
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def noise(n, top=256):
    return bytes(random.randrange(top) for _ in range(n))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(w, h, depth, colour, interlace=0, extra=b"", plte=b"", rows=None):
    raw = b""
    for x0, y0, dx, dy in ADAM7 if interlace else [(0, 0, 1, 1)]:
        pw, ph = (w - x0 + dx - 1) // dx, (h - y0 + dy - 1) // dy
        for _ in range(ph if pw else 0):
            raw += bytes([random.randrange(5)]) + noise((pw * CHANNELS[colour] * depth + 7) // 8)
    data = zlib.compress(rows or raw)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, interlace))
            + (chunk(b"PLTE", plte) if plte else b"") + extra + chunk(b"IDAT", data[:9]) + chunk(b"IDAT", data[9:])
            + chunk(b"IEND", b""))


def bmp(w, h, bits, header=40, masks=None, colours=0, top_down=False):
    palette = noise((colours or (1 << bits)) * (3 if header == 12 else 4)) if bits <= 8 else b""
    rows = noise((w * bits + 31) // 32 * 4 * h)
    if header == 12:
        head = struct.pack("<IHHHH", 12, w, h, 1, bits)
    else:
        head = struct.pack("<IiiHHIIiiII", header, w, -h if top_down else h, 1, bits, 3 if masks else 0, len(rows),
                           2835, 2835, colours, 0)
        head += struct.pack("<4I", *masks)[:12 if header == 40 else 16] if masks else b""
        head = head.ljust(header, b"\0")
    offset = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + head + palette + rows


def exif(orientation):
    e = Image.Exif()
    e[0x010F], e[0x0112] = "a maker's name", orientation
    return e.tobytes()[6:]


files = {}
for depth, colour in [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2), (8, 4), (16, 4), (8, 6), (16, 6)]:
    for interlace in 0, 1:
        files[f"extra-{depth}bit-type{colour}-i{interlace}.png"] = png(19, 11, depth, colour, interlace)
for depth in 1, 2, 4, 8:
    files[f"extra-{depth}bit-palette-i1.png"] = png(13, 9, depth, 3, 1, plte=noise(3 << depth))
files["extra-palette-short.png"] = png(13, 9, 8, 3, plte=noise(15))
files["extra-trns-grey.png"] = png(5, 4, 8, 0, extra=chunk(b"tRNS", b"\0\7"))
files["extra-trns-rgb.png"] = png(5, 4, 8, 2, extra=chunk(b"tRNS", b"\0\1\0\2\0\3"))
files["extra-trns-grey16.png"] = png(5, 4, 16, 0, extra=chunk(b"tRNS", b"\0\7"))
files["extra-grey16-dark.png"] = png(4, 1, 16, 0, rows=b"\0" + struct.pack(">4H", 0, 200, 255, 256))
animation = chunk(b"acTL", struct.pack(">II", 1, 0)) + chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 7, 5, 0, 0, 1, 1, 0, 0))
files["extra-animated.png"] = png(7, 5, 8, 2, extra=animation)
for o in range(1, 9):
    files[f"extra-orientation{o}.png"] = png(7, 5, 8, 2, extra=chunk(b"eXIf", exif(o)))
for bits in 1, 4, 8, 16, 24, 32:
    files[f"extra-{bits}bit.bmp"] = bmp(13, 7, bits)
    files[f"extra-{bits}bit-down.bmp"] = bmp(13, 7, bits, 124, top_down=True)
    files[f"extra-{bits}bit-os2.bmp"] = bmp(13, 7, bits, 12)
files["extra-short-palette.bmp"] = bmp(13, 7, 8, colours=100)
files["extra-565.bmp"] = bmp(13, 7, 16, masks=(0xF800, 0x7E0, 0x1F, 0))
files["extra-565-v4.bmp"] = bmp(13, 7, 16, 108, masks=(0xF800, 0x7E0, 0x1F, 0))
files["extra-rgba.bmp"] = bmp(13, 7, 32, 124, masks=(0xFF, 0xFF00, 0xFF0000, 0xFF000000))
files["extra-xbgr.bmp"] = bmp(13, 7, 32, 40, masks=(0xFF000000, 0xFF0000, 0xFF00, 0))
for i, (mode, options) in enumerate([("RGB", dict(subsampling=2, progressive=True)), ("L", dict(progressive=True)),
                                     ("CMYK", dict(progressive=True)), ("RGB", dict(subsampling=1, optimize=True))]):
    im = Image.frombytes("RGB", (9, 7), noise(189)).resize((37, 29)).convert(mode)
    out = io.BytesIO()
    im.save(out, "JPEG", quality=40 + 15 * i, exif=b"Exif\0\0" + exif(5 + i), **options)
    files[f"extra-{i}.jpg"] = out.getvalue()

header, data = {}, b""
for name, encoded in files.items():
    with open(name, "wb") as f:
        f.write(encoded)
    im = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB")
    pixels = im.tobytes()
    header[name] = {"dtype": "U8", "shape": [im.height, im.width, 3], "data_offsets": [len(data), len(data) + len(pixels)]}
    data += pixels
text = json.dumps(header).encode()
with open("extra.safetensors", "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text + data)
