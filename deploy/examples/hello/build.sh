#!/usr/bin/env bash
# Build the example function and put its image into an engine:   build.sh [IMAGE [ENGINE...]]
# FROM scratch, made by `docker import`, which every engine has; ENGINE as in `docker -H`.
set -euo pipefail
cd "$(dirname "$0")"
image=${1:-davit/hello:latest}
shift || true
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
compiler=$(command -v musl-gcc || command -v gcc || command -v cc)
"$compiler" -O2 -Wall -Wextra -static -pthread -s -o "$work/hello" hello.c
tar -C "$work" --owner=0 --group=0 -cf "$work/hello.tar" hello
for engine in "${@:-}"; do
    docker ${engine:+-H "$engine"} import --change 'ENTRYPOINT ["/hello"]' --change 'EXPOSE 8080' --change 'USER 1000:1000' \
        "$work/hello.tar" "$image" >/dev/null
done
ls -l "$work/hello" | awk -v image="$image" '{ print image ": " int($5 / 1024) " KiB" }'
