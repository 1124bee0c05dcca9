#!/bin/sh
# A plain host: cron, a systemd timer, or a person at a shell.
#
#   0 2 * * *  me  /srv/nightly/cron.sh run
#
# Three ways to take turns on uat; take the one that fits. The key is in a file
# that only this user can read. Without CALL_ME_HOLDER the holder is user@host:
# then two jobs of one user on one machine are the same holder to call-me.
set -eu
export CALL_ME_HOST="${CALL_ME_HOST:-https://call-me.example}"
export CALL_ME_API_KEY_FILE="${CALL_ME_API_KEY_FILE:-$HOME/.config/call-me.key}"
export CALL_ME_HOLDER="${CALL_ME_HOLDER:-cron:$(hostname)/nightly}"
export CALL_ME_REASON="${CALL_ME_REASON:-nightly tests}"

case ${1:-run} in
run) # 1. The slot is held for as long as one command runs.
    exec call-me run uat --timeout 3h -- sh -c './deploy.sh && ./test.sh'
    ;;
request) # 2. The slot is held across several commands.
    # The exit code is that of the tests or, if they passed, of the release: it
    # fails if uat was lost while they ran.
    trap 'code=$?; call-me release uat || exit $((code ? code : $?))' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    call-me request uat --timeout 3h --ttl 1h
    ./deploy.sh
    ./test.sh
    ;;

# 3. The slot is held across several jobs, also on several machines: all say the
# same CALL_ME_HOLDER, which only this night has.
#
#   0 2 * * *  me  /srv/nightly/cron.sh deploy
#   0 4 * * *  me  /srv/nightly/cron.sh test
#   0 6 * * *  me  /srv/nightly/cron.sh free
deploy | test | free)
    CALL_ME_HOLDER=cron:nightly/$(date +%F)
    case $1 in
    deploy)
        call-me request uat --again --timeout 1h --ttl 5h
        ./deploy.sh
        ;;
    test)
        call-me renew uat # cron starts this also when deploy did not get uat
        ./test.sh
        ;;
    free) # whatever became of the others; without it the ttl ends the lease
        call-me release uat
        ;;
    esac
    ;;
*)
    echo "usage: $0 run | request | deploy | test | free" >&2
    exit 2
    ;;
esac
