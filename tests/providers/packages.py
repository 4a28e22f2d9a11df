"""Writes a package `tidy` 1.0.0 as the indexes of pip, npm and cargo have it: below a directory that is served at a URL."""

import base64
import gzip
import hashlib
import io
import json
import pathlib
import sys
import tarfile
import zipfile

ROOT, URL = pathlib.Path(sys.argv[1]), sys.argv[2]


def put(path, data):
    path = ROOT / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def tar(files):
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return gzip.compress(plain.getvalue())


def pip():
    wheel, name = io.BytesIO(), "tidy-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tidy.py", "TIDE = 'low'\n")
        info = "tidy-1.0.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tidy\nVersion: 1.0.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"tidy.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    digest = hashlib.sha256(wheel.getvalue()).hexdigest()
    put(f"pip/tidy/{name}", wheel.getvalue())
    put("pip/tidy/index.html", f'<!DOCTYPE html><a href="{name}#sha256={digest}">{name}</a>'.encode())


def npm():
    package = {"name": "tidy", "version": "1.0.0", "main": "index.js"}
    archive = tar({"package/package.json": json.dumps(package), "package/index.js": "exports.tide = 'low'\n"})
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    package["dist"] = {"tarball": f"{URL}/npm/tidy-1.0.0.tgz", "integrity": integrity}
    versions = {"name": "tidy", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": package}}
    put("npm/tidy", json.dumps(versions).encode())
    put("npm/tidy-1.0.0.tgz", archive)


def cargo():
    manifest = '[package]\nname = "tidy"\nversion = "1.0.0"\nedition = "2021"\n'
    archive = tar({"tidy-1.0.0/Cargo.toml": manifest, "tidy-1.0.0/src/lib.rs": "pub const TIDE: &str = \"low\";\n"})
    digest = hashlib.sha256(archive).hexdigest()
    line = {"name": "tidy", "vers": "1.0.0", "deps": [], "cksum": digest, "features": {}, "yanked": False}
    put("cargo/config.json", json.dumps({"dl": f"{URL}/cargo/{{crate}}-{{version}}.crate"}).encode())
    put("cargo/ti/dy/tidy", json.dumps(line).encode() + b"\n")
    put("cargo/tidy-1.0.0.crate", archive)


pip()
npm()
cargo()
