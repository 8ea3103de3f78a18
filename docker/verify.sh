#!/usr/bin/env bash
# Builds docker/Dockerfile without a Docker engine, starts the image and captions a photo through it.
#
#   make docker-verify        (as root, on Debian or Ubuntu; some minutes, about 8 GB of disk while it runs)
#
# buildah does the work with chroot isolation and plain folders as storage, which asks least of the machine. The
# base image is made by debootstrap from the mirror this machine's apt uses, and pip inside fetches as pip here
# does. DEBIAN_MIRROR and TMPDIR choose another mirror and another place for the files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-.venv/bin/python}
suite=bookworm
base=localhost/paellera-base
image=localhost/paellera

fail() {
    echo "error: $*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "this needs root: it makes a Debian base and runs containers"
[ -x "$python" ] || fail "there is no $python: run make venv"
[ -f bundles/compact/bundle.json ] || fail "there is no bundles/compact to put into the image"
missing=()
for tool in buildah debootstrap; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || fail "install ${missing[*]}"
    echo "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

photo=$("$python" -c 'from app.commands.demo import SAMPLES; print(SAMPLES[0].path)')
port=$("$python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Identifier: Packages' \
    | awk -v suite="$suite" '$1 == suite { print $2; exit }')}
[ -n "$mirror" ] || fail "apt here knows no mirror of Debian $suite: name one with DEBIAN_MIRROR"

work=$(mktemp -d "${TMPDIR:-/var/tmp}/paellera-image.XXXXXX")
container=
service=

storage() {
    buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"
}

clean_up() {
    status=$?
    if [ -n "$service" ]; then
        kill -TERM -- "-$service" 2>/dev/null || true  # its whole process group
        wait "$service" 2>/dev/null || true
    fi
    if [ $status -ne 0 ] && [ -s "$work/service.log" ]; then
        echo "--- the end of the service's log" >&2
        tail -n 40 "$work/service.log" >&2
    fi
    [ -z "$container" ] || storage rm "$container" >/dev/null || true
    # What an interrupted debootstrap or build left mounted must not be emptied with the rest.
    awk -v work="$work/" "index(\$2, work) == 1 { print \$2 }" /proc/mounts | sort -r | xargs -r umount
    rm -rf --one-file-system "$work"
}
trap clean_up EXIT

echo "--- a Debian $suite base image"
container=$(storage from scratch)
root=$(storage mount "$container")
debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$work/debootstrap.log" 2>&1 \
    || { tail -n 20 "$work/debootstrap.log" >&2; fail "debootstrap did not make the base"; }
rm -rf "$root"/var/cache/apt/archives/*.deb
storage umount "$container" >/dev/null
storage commit --quiet --rm "$container" "$base" >/dev/null
container=

echo "--- docker/Dockerfile on it"
apt-config dump Acquire | grep -E "^Acquire::(http|https|Check|Retries)" >"$work/apt.conf" || true  # proxies …
volumes=(--volume "$work/pip.conf:/etc/pip.conf:ro" --volume "$work/apt.conf:/etc/apt/apt.conf.d/99host:ro")
"$python" docker/host_pip_config.py "$work/pip.conf" /mnt/host >"$work/paths"
while read -r path; do
    volumes+=(--volume "$path:/mnt/host$path:ro")
done <"$work/paths"
storage bud --isolation chroot --format docker --pull-never "${volumes[@]}" \
    --build-arg BASE_IMAGE="$base" --file docker/Dockerfile --tag "$image" .

container=$(storage from --pull-never "$image")
storage inspect "$container" >"$work/image.json"

# One word a line: what the image starts, and what tells whether it is alive.
mapfile -t command < <("$python" -c '
import json, sys
print(*json.load(open(sys.argv[1]))["Docker"]["config"]["Cmd"], sep="\n")' "$work/image.json")
mapfile -t health < <("$python" -c '
import json, sys
print(*json.load(open(sys.argv[1]))["Docker"]["config"]["Healthcheck"]["Test"][1:], sep="\n")' "$work/image.json")

inside() {
    storage run --isolation chroot --env PAELLERA_PORT="$port" "$container" -- "$@"
}

echo "--- who it runs as"
user=$(inside id -u)
echo "uid $user"
[ "$user" != 0 ] || fail "the image runs as root"

echo "--- ${command[*]}"
if inside "${health[@]}" 2>/dev/null; then
    fail "the health check passes while nothing runs"
fi
set -m  # the service gets a process group of its own, to be ended with all its children
inside "${command[@]}" >"$work/service.log" 2>&1 &
service=$!
set +m
"$python" docker/check_service.py "http://127.0.0.1:$port" "$photo" en ar

echo "--- health check"
inside "${health[@]}" || fail "the health check fails while the service runs"
echo "passes while the service runs, fails when it does not"

echo "--- done: the image builds, runs as uid $user, captions and is healthy"
