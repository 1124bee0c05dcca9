#!/bin/sh
# The plugin of Woodpecker and Drone: a step with the action request, your steps, and a step with the
# action release that runs also after a failure. Each is a container. They share the workspace, in
# which call-me notes what was requested, so that release frees only that.
set -eu
notes=${CI_WORKSPACE:-${DRONE_WORKSPACE:-$PWD}}/.call-me
mkdir -p "$notes"
echo '*' >"$notes/.gitignore"
export XDG_CACHE_HOME="$notes"
if [ -n "${PLUGIN_HOST:-}" ]; then export CALL_ME_HOST="$PLUGIN_HOST"; fi
if [ -n "${PLUGIN_KEY:-}" ]; then export CALL_ME_API_KEY="$PLUGIN_KEY"; fi
# A list comes with commas, or as JSON.
listed() { printf %s "$1" | tr '[],"' '    '; }
environments=$(listed "${PLUGIN_ENVIRONMENT:-}")
case "${PLUGIN_ACTION:-}" in
request)
    export CALL_ME_TIMEOUT="${PLUGIN_TIMEOUT:-}" CALL_ME_TTL="${PLUGIN_TTL:-}" CALL_ME_REASON="${PLUGIN_REASON:-}"
    # shellcheck disable=SC2086 # several words are several environments
    set -- $environments
    for slot in $(listed "${PLUGIN_SLOT:-}"); do set -- "$@" "--slot=$slot"; done
    case "${PLUGIN_SUPERSEDE:-}" in
    '' | false) ;;
    true) set -- "$@" --supersede ;;
    *) set -- "$@" "--supersede=$PLUGIN_SUPERSEDE" ;;
    esac
    if [ "${PLUGIN_AGAIN:-}" = true ]; then set -- "$@" --again; fi
    exec call-me request "$@"
    ;;
release)
    # shellcheck disable=SC2086
    exec call-me release $environments
    ;;
*)
    echo "call-me: the setting action is request or release" >&2
    exit 2
    ;;
esac
