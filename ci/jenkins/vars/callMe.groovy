// A step of a Jenkins shared library. It waits for a slot, holds it around its body, and gives it
// back however the body ends:
//
//   callMe('uat', timeout: '60m') { sh './deploy.sh && ./test.sh' }
//   callMe(['uat', 'perf']) { ... }   // both at once or none
//
// It needs call-me on the agent, a POSIX shell, and no plugin beyond the Pipeline's own steps. The key is
// in the environment: CALL_ME_API_KEY, or API_KEY_FILE. docs/ci-plugins.md has the set-up.
import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import groovy.transform.Field

// The options, and the flags of call-me request that they stand for.
@Field Map flags = [timeout: 'timeout', ttl: 'ttl', maxHold: 'max-hold', reason: 'reason', slot: 'slot',
    priority: 'priority', supersede: 'supersede', again: 'again', holder: 'holder']

// blocks is how many blocks of this build have begun. Each is a holder of its own, so that parallel
// branches take turns, and none gives back the slot of another one.
@Field int blocks = 0

def call(Map options = [:], environments, Closure body) {
    List names = environments instanceof List ? environments : [environments]
    String request = requestCommand(names, options)
    withEnv(['CALL_ME_HOLDER=' + (options.holder ?: newHolder())]) {
        List leases = null
        boolean passed = false
        try {
            leases = granted(names, sh(label: "call-me request ${names.join(' ')}", script: request, returnStdout: true))
            def result = withEnv(variables(leases)) { body() }
            passed = true
            return result
        } finally {
            release(names, leases, passed)
        }
    }
}

String newHolder() {
    blocks++
    String stage = env.STAGE_NAME ? env.STAGE_NAME + '/' : ''
    String holder = "jenkins:${env.JOB_NAME}/${env.BUILD_NUMBER}/${stage}${blocks}"
    return holder.replace(' ', '-')
}

// requestCommand returns the command that waits. An exit code that is not 0 is printed in place of a
// lease, since sh returns either the output or the exit code.
String requestCommand(List names, Map options) {
    String command = 'call-me request --json'
    for (String name in new ArrayList(options.keySet())) {
        if (!flags[name]) {
            error("callMe: there is no option ${name}; there are ${flags.keySet().join(', ')}")
        }
        List values = options[name] instanceof List ? options[name] : [options[name]]
        for (value in values) {
            if (value == true) {
                command += " --${flags[name]}"
            } else if (value != null && value != false) {
                command += " --${flags[name]}=" + quote(value.toString())
            }
        }
    }
    return command + ' -- ' + quoteAll(names) + ' || echo "exit $?"'
}

// granted returns the leases in the output of the request. If there are none, the build ends: NOT_BUILT
// if a newer run has taken its place, else it fails.
List granted(List names, String output) {
    String text = output.trim()
    if (text.startsWith('{')) {
        return parse(text)
    }
    if (text == 'exit 77') {
        currentBuild.result = 'NOT_BUILT'
        error("callMe: a newer run has taken the place in the queue for ${names.join(' and ')}")
    }
    error("callMe: no slot of ${names.join(' and ')}: call-me request ended with ${text}")
}

// parse returns each lease as a map with environment, slot and fence. It copies them, since what the
// parser returns cannot be stored with a build that is resumed.
@NonCPS
List parse(String text) {
    Map answer = new JsonSlurper().parseText(text)
    List all = []
    for (lease in (answer.leases ?: [answer])) {
        all.add([environment: lease.environment, slot: lease.slot, fence: lease.fence])
    }
    return all
}

@NonCPS
String json(List leases) {
    List all = []
    for (Map lease in leases) {
        all.add(JsonOutput.toJson(lease))
    }
    return '[' + all.join(',') + ']'
}

// variables returns what call-me run would set for its command. With several leases there is only
// CALL_ME_LEASES; an empty variable hides that of a block around this one.
List variables(List leases) {
    boolean one = leases.size() == 1
    return ['CALL_ME_LEASES=' + json(leases),
        'CALL_ME_ENVIRONMENT=' + (one ? leases[0].environment : ''),
        'CALL_ME_SLOT=' + (one ? leases[0].slot : ''),
        'CALL_ME_FENCE=' + (one ? leases[0].fence : '')]
}

// release ends each lease by its fence. Without leases the build was aborted before the answer was
// read, or there was none: call-me release knows what was requested here. If the body has passed, a lost
// slot fails the build, since somebody else may have used it meanwhile.
void release(List names, List leases, boolean passed) {
    List commands = []
    if (leases == null) {
        commands.add('call-me release -- ' + quoteAll(names))
    }
    for (lease in (leases ?: [])) {
        commands.add("call-me release --fence=${lease.fence} -- " + quote(lease.environment))
    }
    int worst = 0
    for (String command in commands) {
        int code = sh(label: "call-me release ${names.join(' ')}", script: command, returnStatus: true)
        worst = code > worst ? code : worst
    }
    if (passed && worst == 76) {
        error("callMe: ${names.join(' or ')} was lost before the end of the block: somebody else may have used it meanwhile")
    }
    if (passed && worst > 0) {
        error("callMe: ${names.join(' or ')} was not given back, it comes free when its ttl ends")
    }
}

String quoteAll(List words) {
    List quoted = []
    for (word in words) {
        quoted.add(quote(word.toString()))
    }
    return quoted.join(' ')
}

String quote(String word) {
    return "'" + word.replace("'", "'\\''") + "'"
}
