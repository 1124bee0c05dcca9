#!/bin/sh
# One pipeline, as CI would run it: it takes the shared environment, deploys
# its version slowly into several files, tests for a while that all of it is
# still there, and gives the environment back.
#
#   sh pipeline.sh VERSION FOLDER
#
# FOLDER is the shared environment. With LOCK=none call-me is left out: then
# two pipelines at once see each other's deployments, exit code 3.
set -eu
version=$1 folder=$2 lock=${LOCK:-call-me}

# On one machine two pipelines would be the same user@host: then the clean-up of
# one could end the other's lease.
export CALL_ME_HOLDER="${CALL_ME_HOLDER:-pipeline $version, process $$}"

if [ "$lock" != none ]; then
    # The exit code is that of the tests or, if they passed, of the release: it
    # fails if uat was lost while they ran.
    trap 'code=$?; call-me release uat || exit $((code ? code : $?))' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    call-me request uat --reason "testing $version"
fi

for part in web api worker database; do
    echo "$version" >"$folder/$part"
    sleep 0.02
done

for i in 1 2 3 4 5; do
    for part in web api worker database; do
        found=$(cat "$folder/$part")
        if [ "$found" != "$version" ]; then
            echo "$part is $found, expected $version: somebody else has deployed" >&2
            exit 3
        fi
    done
    sleep 0.02
done
