#!/bin/sh
# A target that checks the fencing token: the last protection against a job
# that was paused for longer than its lease, and does not know yet that another
# job holds the slot. Fencing tokens only grow, so the target refuses every one
# that is smaller than the largest it has seen.
#
#   call-me run uat -- sh fenced-target.sh FOLDER VERSION
#
# FOLDER stands for the test environment: in real life this check lives there,
# beside the deployment, and the fence comes with the request (a header, say).
set -eu
folder=$1 version=$2 fence=${CALL_ME_FENCE:?run this under call-me run}

exec 9>"$folder/.lock"
flock 9 # one deployment looks at the fence at a time
seen=$(cat "$folder/.fence" 2>/dev/null || echo 0)
if [ "$fence" -lt "$seen" ]; then
    echo "fence $fence is over, $seen has been here: not deploying $version" >&2
    exit 1
fi
echo "$fence" >"$folder/.fence"
echo "$version" >"$folder/version"
echo "deployed $version with fence $fence"
