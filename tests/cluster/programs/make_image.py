"""Write a one-layer OCI image as a tar file that `ctr image import` reads.

make_image.py OUT.tar NAME --file PATH=LOCAL ... --env K=V ... --entrypoint PROGRAM --cmd ARG ...
"""

import argparse
import hashlib
import io
import json
import tarfile


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o755
    tar.addfile(info, io.BytesIO(data))


parser = argparse.ArgumentParser()
parser.add_argument("out")
parser.add_argument("name")
parser.add_argument("--file", action="append", default=[])
parser.add_argument("--env", action="append", default=[])
parser.add_argument("--entrypoint", action="append", default=[])
parser.add_argument("--cmd", action="append", default=[])
args = parser.parse_args()

buffer = io.BytesIO()
with tarfile.open(fileobj=buffer, mode="w") as layer_tar:
    add(layer_tar, ".lab-image", args.name.encode())
    for item in args.file:
        path, local = item.split("=", 1)
        with open(local, "rb") as f:
            add(layer_tar, path, f.read())
layer = buffer.getvalue()
config = json.dumps(
    {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": args.entrypoint, "Cmd": args.cmd, "Env": args.env},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest(layer)]},
    }
).encode()


def described(media_type: str, data: bytes, **extra: object) -> dict:
    return {"mediaType": media_type, "digest": "sha256:" + digest(data), "size": len(data), **extra}


oci = "application/vnd.oci.image."
manifest = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": oci + "manifest.v1+json",
        "config": described(oci + "config.v1+json", config),
        "layers": [described(oci + "layer.v1.tar", layer)],
    }
).encode()
names = {"io.containerd.image.name": args.name, "org.opencontainers.image.ref.name": args.name}
index = json.dumps(
    {"schemaVersion": 2, "manifests": [described(oci + "manifest.v1+json", manifest, annotations=names)]}
).encode()
with tarfile.open(args.out, "w") as out:
    add(out, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    add(out, "index.json", index)
    for blob in (layer, config, manifest):
        add(out, "blobs/sha256/" + digest(blob), blob)
