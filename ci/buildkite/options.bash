# What both hooks need of the options of the plugin, which are variables.

# listed prints the values of an option one a line. It is a list, or a text with spaces.
listed() {
    local name=BUILDKITE_PLUGIN_CALL_ME_$1 i=0
    # shellcheck disable=SC2086 # each word is a value
    if [ -n "${!name:-}" ]; then printf '%s\n' ${!name}; fi
    for ((; ; i++)); do
        name=BUILDKITE_PLUGIN_CALL_ME_$1_$i
        if [ -z "${!name:-}" ]; then return 0; fi
        printf '%s\n' "${!name}"
    done
}

environments=$(listed ENVIRONMENT)
