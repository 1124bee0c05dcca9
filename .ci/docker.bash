# Sourced by scripts that need a Docker engine, with $work, a folder: starts one of its own where
# none answers. stop_docker ends it. Exit code 75: there is no engine.
docker_pid=
prefer_distribution() { # its client has BuildKit in it, which another one in front of it may not have
    if [ ! -x /usr/bin/docker ]; then return; fi
    mkdir -p "$work/bin"
    ln -sf /usr/bin/docker "$work/bin/docker"
    PATH=$work/bin:$PATH
    hash -r
}
start_docker() {
    prefer_distribution
    if docker info >/dev/null 2>&1; then return; fi
    if ! command -v dockerd >/dev/null; then
        command -v apt-get >/dev/null || { echo "there is no Docker engine here" >&2; return 75; }
        echo "installing docker.io"
        local as_root=()
        if [ "$(id -u)" != 0 ]; then as_root=(sudo); fi
        "${as_root[@]}" apt-get update -q >/dev/null
        DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -qy --no-install-recommends docker.io >/dev/null
        prefer_distribution
    fi
    export DOCKER_HOST=unix://$work/docker.sock
    dockerd --data-root "$work/data" --exec-root "$work/exec" --host "$DOCKER_HOST" --pidfile "$work/pid" \
        --bridge none --iptables=false >"$work/log" 2>&1 &
    docker_pid=$!
    for _ in $(seq 100); do
        if docker info >/dev/null 2>&1; then return; fi
        sleep 0.2
    done
    tail -5 "$work/log" >&2
    echo "no Docker engine can be started here" >&2
    return 75
}
stop_docker() {
    if [ -z "$docker_pid" ]; then return; fi
    kill "$docker_pid" && wait "$docker_pid" || true
    umount "$work"/exec/netns/* 2>/dev/null || true
}
