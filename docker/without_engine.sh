#!/bin/sh
# Builds an image where there is neither a Docker engine nor an image registry, as root on Debian:
#
#   docker/without_engine.sh cpu|gpu [OPTION OF buildah bud...]
#
# buildah runs the Dockerfile over a base that debootstrap makes from Debian's packages: Debian's own Python 3.11 in
# the place of the image python:3.11-slim-bookworm. Images, and the base for the next time, are kept in $LMR_IMAGES.
# What this machine's pip needs to reach its registry comes as options, such as -v /etc/pip.conf:/etc/pip.conf:ro.
set -eu
kind=$1
shift
store=${LMR_IMAGES:-${XDG_CACHE_HOME:-${HOME:?set LMR_IMAGES to a folder for images}/.cache}/lmr-images}
base=localhost/debian-python:bookworm
cd "$(dirname "$0")/.."

for tool in buildah debootstrap; do
    command -v $tool >/dev/null || {
        echo "there is no $tool: apt-get install buildah debootstrap" >&2
        exit 1
    }
done

in_store() {
    buildah --root "$store/storage" --runroot "$store/run" --storage-driver vfs "$@"
}

if ! in_store inspect --type image $base >/dev/null 2>&1; then
    mkdir -p "$store/base"
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$store/base/root" >&2
    rm -rf "$store"/base/root/var/cache/apt/archives/*.deb "$store"/base/root/var/lib/apt/lists/*
    tar -C "$store/base/root" -cf "$store/base/root.tar" .
    rm -rf "$store/base/root"
    printf 'FROM scratch\nADD root.tar /\nCMD ["bash"]\n' >"$store/base/Dockerfile"
    in_store bud --isolation chroot -t $base "$store/base"
    rm -rf "$store/base"
fi
in_store bud --isolation chroot --format docker --layers=false -f "docker/$kind.Dockerfile" \
    --build-arg BASE_IMAGE=$base -t "localhost/lmr-$kind" "$@" .
echo "built localhost/lmr-$kind: buildah --root $store/storage --runroot $store/run --storage-driver vfs images"
