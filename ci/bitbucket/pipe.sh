#!/bin/sh
# The pipe: request in a script, release in its after-script. Both are a container each. They share the
# folder of Bitbucket's in which call-me notes what was requested, so that release frees only that.
set -eu
export XDG_CACHE_HOME="${BITBUCKET_PIPE_STORAGE_DIR:-$BITBUCKET_CLONE_DIR/.call-me}"
case "${ACTION:-}" in
request)
    export CALL_ME_TIMEOUT="${TIMEOUT:-60m}" CALL_ME_TTL="${TTL:-2h}" CALL_ME_REASON="${REASON:-}"
    # shellcheck disable=SC2086 # several words are several environments
    set -- $ENVIRONMENT
    for slot in ${SLOT:-}; do set -- "$@" "--slot=$slot"; done
    case "${SUPERSEDE:-}" in
    '' | false) ;;
    true) set -- "$@" --supersede ;;
    *) set -- "$@" "--supersede=$SUPERSEDE" ;;
    esac
    exec call-me request "$@"
    ;;
release)
    # shellcheck disable=SC2086
    exec call-me release $ENVIRONMENT
    ;;
*)
    echo "call-me: ACTION is request or release" >&2
    exit 2
    ;;
esac
