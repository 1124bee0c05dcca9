// Runs a pipeline as far as the step callMe needs it: stand-ins for steps of Jenkins, of which sh
// really starts a shell. The arguments are the step and the pipeline. A line on stdin aborts the build:
// as in Jenkins, the shells that run get SIGTERM and their sh throws, and what follows is run.
import java.util.concurrent.ConcurrentHashMap

class Aborted extends Exception { }

def variables = new InheritableThreadLocal<Map>() { Map initialValue() { new HashMap(System.getenv()) } }
def running = ConcurrentHashMap.newKeySet()
def aborted = ConcurrentHashMap.newKeySet()
def turn = new java.util.concurrent.Semaphore(1) // as in Jenkins one branch at a time runs Groovy
turn.acquire()
def stages = new ThreadLocal<Map>() // those of the parallel block that is read

Thread.startDaemon {
    if (System.in.read() >= 0) {
        synchronized (running) { // a shell that has just been started is one of them
            for (pid in running) {
                aborted.add(pid)
                ['kill', '-TERM', '--', "-$pid"].execute().waitFor()
            }
        }
    }
}

def steps = [:]
steps.sh = { argument ->
    Map options = argument instanceof Map ? argument : [script: argument]
    def file = File.createTempFile('step', '.sh')
    file.text = options.script.toString()
    def shell = new ProcessBuilder('setsid', 'sh', '-xe', file.path).redirectErrorStream(false)
    shell.environment().clear()
    shell.environment().putAll(variables.get())
    shell.redirectError(ProcessBuilder.Redirect.INHERIT)
    if (!options.returnStdout) shell.redirectOutput(ProcessBuilder.Redirect.INHERIT)
    turn.release()
    Process process
    long pid
    synchronized (running) {
        process = shell.start()
        pid = process.pid()
        running.add(pid)
    }
    def text = process.inputStream.text
    int code = process.waitFor()
    turn.acquire()
    running.remove(pid)
    file.delete()
    if (aborted.contains(pid)) throw new Aborted()
    if (options.returnStatus) return code
    if (code != 0) throw new Exception("script returned exit code $code")
    options.returnStdout ? text : null
}
steps.withEnv = { List pairs, Closure body ->
    def before = variables.get()
    variables.set(before + pairs.collectEntries { def (name, value) = it.toString().split('=', 2); [name, value] })
    try { body() } finally { variables.set(before) }
}
steps.error = { text -> throw new Exception(text.toString()) }
steps.echo = { text -> println text }
steps.credentials = { id -> System.getenv('CALL_ME_API_KEY') }
steps.Library = { name -> }
steps.agent = { where -> }
steps.environment = { }
steps.parallel = { argument ->
    def branches = argument
    if (argument instanceof Closure) { // declarative
        stages.set([:])
        argument()
        branches = stages.get()
        stages.remove()
    }
    def failed = Collections.synchronizedList([])
    branches.values().collect { branch ->
        Thread.start {
            turn.acquire()
            try { branch() } catch (e) { failed.add(e) } finally { turn.release() }
        }
    }.with { threads -> turn.release(); threads*.join(); turn.acquire() }
    if (failed) throw failed[0]
}
steps.stage = { name, Closure body ->
    Closure run = { steps.withEnv(["STAGE_NAME=$name"], body) }
    stages.get() == null ? run() : stages.get().put(name, run)
}
for (block in ['pipeline', 'stages', 'steps', 'script', 'node']) steps[block] = { Closure body -> body() }

class Env {
    def variables
    def getProperty(String name) { this.@variables.get()[name] }
}

def build = [result: 'SUCCESS']
def binding = new Binding(steps + [env: new Env(variables: variables), currentBuild: build, any: 'any'])
def shell = new GroovyShell(this.class.classLoader, binding)
def step = shell.parse(new File(args[0]).text + '\n@interface NonCPS { }\n') // an annotation of Jenkins
binding.setVariable('callMe', { Object... given -> step.invokeMethod('call', given) })
int code = 0
try {
    shell.parse(new File(args[1]).text.replace("@Library('call-me') _", '')).run()
} catch (e) {
    println "the build failed: $e"
    code = 1
}
println "the result is ${code == 0 || build.result != 'SUCCESS' ? build.result : 'FAILURE'}"
System.exit(code)
